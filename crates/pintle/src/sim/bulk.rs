//! Much at a time: many requests under way, a bar that shows how far it is, and what exists stays.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use apimachinery::{GroupVersionResource, Object, Status, Str, Value};
use client::{Api, DeleteOptions, ListOptions, ObjectList, WriteOptions};
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};

/// Requests under way: enough that the server is never waited for, few enough that it serves others, too.
const IN_FLIGHT: usize = 128;
/// Objects read at once.
const PAGE: usize = 2_000;
/// A server that has too much to do is asked again so often, after a pause that doubles.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(100);

/// Where objects of one kind are.
pub(super) struct Collection {
    gvr: GroupVersionResource,
    namespace: Str,
    /// What a person calls them.
    plural: &'static str,
}

type Make = dyn Fn(&str, u64) -> Value + Send + Sync;

/// Objects to be made.
pub(super) struct Creation {
    pub collection: Collection,
    pub prefix: String,
    pub count: u64,
    /// The object of a name and its number.
    pub object: Arc<Make>,
}

/// Which of the objects of that prefix a name is of.
pub(super) fn number_of(prefix: &str, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_prefix('-')?;
    let number = digits.parse().ok()?;
    (digits == format!("{number}")).then_some(number)
}

// === impl Creation ===

impl Creation {
    pub async fn run(self, api: &Arc<dyn Api>) -> anyhow::Result<()> {
        let Self { collection, prefix, count, object } = self;
        let started = rt::instant();
        let mut existing = HashSet::new();
        collection
            .each_page(api, "", |page| {
                existing.extend(page.items.iter().filter_map(|object| number_of(&prefix, object.name())))
            })
            .await?;
        let bar = bar(count);
        let missing: Vec<u64> = (0..count).filter(|number| !existing.contains(number)).collect();
        bar.inc(count - missing.len() as u64);
        let created = missing.len();
        futures::stream::iter(missing.into_iter().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |number| {
                let (collection, object, bar, prefix) = (&collection, &object, &bar, &prefix);
                async move {
                    let name = format!("{prefix}-{number}");
                    collection.create(api, &name, || object(&name, number)).await?;
                    bar.inc(1);
                    anyhow::Ok(())
                }
            })
            .await?;
        bar.finish_and_clear();
        let there = count as usize - created;
        let already = if there > 0 { format!("; {there} were there already") } else { String::new() };
        println!(
            "Created {created} {} in {:.2} s{already}",
            collection.plural,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

// === impl Collection ===

impl Collection {
    pub fn of(gvr: &GroupVersionResource, namespace: &str, plural: &'static str) -> Self {
        Self { gvr: gvr.clone(), namespace: namespace.into(), plural }
    }

    /// Deletes those that match, at once and without grace.
    pub async fn delete(
        &self,
        api: &Arc<dyn Api>,
        label_selector: &str,
        is_meant: impl Fn(&Object) -> bool,
    ) -> anyhow::Result<()> {
        let started = rt::instant();
        let mut names = Vec::new();
        self.each_page(api, label_selector, |page| {
            let meant = page.items.iter().filter(|object| is_meant(object));
            names.extend(meant.map(|object| (Str::from(object.name()), Str::from(object.uid()))));
        })
        .await?;
        let count = names.len();
        let bar = bar(count as u64);
        futures::stream::iter(names.into_iter().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |(name, uid)| {
                let bar = &bar;
                async move {
                    self.delete_one(api, &name, uid).await?;
                    bar.inc(1);
                    anyhow::Ok(())
                }
            })
            .await?;
        bar.finish_and_clear();
        println!("Deleted {count} {} in {:.2} s", self.plural, started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn create(&self, api: &Arc<dyn Api>, name: &str, object: impl Fn() -> Value) -> anyhow::Result<()> {
        let options = WriteOptions::default();
        let created = patiently(|| api.create(&self.gvr, &self.namespace, object(), &options)).await;
        match created {
            Ok(_) => Ok(()),
            // Another run of the same command was quicker, or an answer got lost.
            Err(status) if status.is_already_exists() => Ok(()),
            Err(status) => Err(anyhow!(status)).with_context(|| format!("creating {} {name}", self.plural)),
        }
    }

    async fn delete_one(&self, api: &Arc<dyn Api>, name: &str, uid: Str) -> anyhow::Result<()> {
        let options =
            DeleteOptions { grace_period_seconds: Some(0), uid: Some(uid), ..DeleteOptions::default() };
        match patiently(|| api.delete(&self.gvr, &self.namespace, name, &options)).await {
            Ok(()) => Ok(()),
            // Gone, or another of its name is there by now, which nobody asked to delete.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(anyhow!(status)).with_context(|| format!("deleting {} {name}", self.plural)),
        }
    }

    /// Reads all that match, page by page.
    async fn each_page(
        &self,
        api: &Arc<dyn Api>,
        label_selector: &str,
        mut page: impl FnMut(&ObjectList),
    ) -> anyhow::Result<()> {
        let mut options =
            ListOptions { label_selector: label_selector.to_owned(), limit: PAGE, ..ListOptions::default() };
        loop {
            let list = patiently(|| api.list(&self.gvr, &self.namespace, &options)).await;
            let list =
                list.map_err(|status| anyhow!(status)).with_context(|| format!("listing {}", self.plural))?;
            page(&list);
            if list.continue_token.is_empty() {
                return Ok(());
            }
            options.continue_token = list.continue_token;
        }
    }
}

/// Again, when the server says that it cannot now.
async fn patiently<T, F: Future<Output = Result<T, Status>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, Status> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match call().await {
            Err(status) if matches!(status.code, 429 | 503 | 504) => {
                rt::sleep(rt::jittered(pause, 0.5)).await
            }
            outcome => return outcome,
        }
        pause *= 2;
    }
    call().await
}

/// On a terminal; elsewhere the last line says it all.
fn bar(count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "  {wide_bar} {human_pos}/{human_len}  {per_sec}  {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::gvr::NODES;
    use apimachinery::json;
    use client::fake::FakeApi;

    fn creation(count: u64) -> Creation {
        Creation {
            collection: Collection::of(&NODES, "", "nodes"),
            prefix: "sim".to_owned(),
            count,
            object: Arc::new(
                |name, _| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
            ),
        }
    }

    async fn names(api: &Arc<dyn Api>) -> Vec<String> {
        let list = api.list(&NODES, "", &ListOptions::default()).await.expect("the fake lists");
        list.items.iter().map(|node| node.name().to_owned()).collect()
    }

    #[test]
    fn only_names_that_are_made_here_have_a_number() {
        for (name, number) in
            [("sim-0", Some(0)), ("sim-12", Some(12)), ("sim-012", None), ("sim-x", None), ("sim", None)]
        {
            assert_eq!(number_of("sim", name), number, "{name}");
        }
        assert_eq!(number_of("sim", "simple-1"), None);
    }

    #[tokio::test]
    async fn a_second_run_makes_what_is_missing_and_a_deletion_takes_only_what_is_meant() {
        let api: Arc<dyn Api> = FakeApi::new();
        let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other-0"}});
        api.create(&NODES, "", other, &WriteOptions::default()).await.expect("created");
        creation(2).run(&api).await.expect("made");
        creation(4).run(&api).await.expect("made");
        assert_eq!(names(&api).await, ["other-0", "sim-0", "sim-1", "sim-2", "sim-3"]);
        let is_meant = |node: &Object| number_of("sim", node.name()).is_some_and(|number| number != 2);
        Collection::of(&NODES, "", "nodes").delete(&api, "", is_meant).await.expect("deleted");
        assert_eq!(names(&api).await, ["other-0", "sim-2"]);
    }
}
