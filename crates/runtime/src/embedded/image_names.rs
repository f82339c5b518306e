//! By which of its names an image is told of in a container's status.

use crate::spec::ImageStatus;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageNames {
    /// `registry/repository:tag`; of an image that has no tag, what the pod says.
    pub name: String,
    /// `registry/repository@sha256:…`, by which another node can have the very same; the ID of an image that came from
    /// no registry.
    pub digest: String,
}

/// The names of an image that a pod calls `reference`: of several, those that this one means.
pub(super) fn choose(reference: &str, image: &ImageStatus) -> ImageNames {
    let named = reference.split('@').next().unwrap_or_default();
    let means = |tag: &&String| {
        [named.to_owned(), format!("{named}:latest")].iter().any(|wanted| {
            tag.strip_suffix(wanted.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
    };
    let name = match reference.contains('@') {
        true => None,
        false => image.tags.iter().find(means),
    };
    let name = name.cloned().unwrap_or_else(|| reference.to_owned());
    let wanted = repository(&name);
    let same = |digest: &&String| {
        let own = repository(digest);
        own.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('/'))
    };
    let digest = image.digests.iter().find(same).or(image.digests.first()).unwrap_or(&image.id);
    ImageNames { name, digest: digest.clone() }
}

/// The name without its tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or_default();
    match name.rsplit_once(':') {
        // Not the port of a registry.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_names_those_are_told_that_the_pod_means() {
        let image = ImageStatus {
            id: "sha256:id".to_owned(),
            tags: ["docker.io/library/web:1", "docker.io/library/web:latest", "reg:5000/team/web:1"]
                .map(str::to_owned)
                .into(),
            digests: ["docker.io/library/web@sha256:d", "reg:5000/team/web@sha256:d"]
                .map(str::to_owned)
                .into(),
            ..ImageStatus::default()
        };
        for (reference, name, digest) in [
            ("web:1", "docker.io/library/web:1", "docker.io/library/web@sha256:d"),
            ("web", "docker.io/library/web:latest", "docker.io/library/web@sha256:d"),
            ("reg:5000/team/web:1", "reg:5000/team/web:1", "reg:5000/team/web@sha256:d"),
            ("reg:5000/team/web@sha256:d", "reg:5000/team/web@sha256:d", "reg:5000/team/web@sha256:d"),
            // A name that went to another image since.
            ("eb:1", "eb:1", "docker.io/library/web@sha256:d"),
        ] {
            let chosen = choose(reference, &image);
            assert_eq!((chosen.name.as_str(), chosen.digest.as_str()), (name, digest), "{reference}");
        }
    }

    #[test]
    fn an_image_from_no_registry_is_told_of_by_its_id() {
        let image = ImageStatus {
            id: "sha256:id".to_owned(),
            tags: vec!["docker.io/library/own:1".to_owned()],
            ..ImageStatus::default()
        };
        let chosen = choose("own:1", &image);
        assert_eq!(chosen.name, "docker.io/library/own:1");
        assert_eq!(chosen.digest, "sha256:id");
    }
}
