//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! As upstream since 1.36 there are two ways to be allowed to. The old one is the verb `impersonate` on users, groups,
//! service accounts, uids and extra values. The constrained ones take two rights: to impersonate that sort of user
//! (`impersonate:user-info`, `impersonate:serviceaccount`, …), and to do what the request does while doing so
//! (`impersonate-on:user-info:get` on pods). Constrained ways are tried first; the first error is the one reported.

use apimachinery::field::go_quote;
use apimachinery::{Status, dns};
use percent_encoding::percent_decode_str;

use crate::authorizer::{Attributes, Authorizer, forbidden};
use crate::user::{self, Extra, UserInfo};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// From so many groups or extra values on, one question for all of them is asked before one for each.
const MANY: usize = 4;

/// Whom a request wants to act as, exactly as its headers have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonation {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Extra,
}

impl Impersonation {
    /// Reads the headers, names in lower case. `Ok(None)` if nobody is to be impersonated.
    ///
    /// The error is a 400: groups, uid or extra without a user.
    pub fn from_headers<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, Status> {
        let (mut wanted, mut more) = (Self::default(), false);
        for (name, value) in headers {
            match name {
                // As with Go's Header.Get, the first one counts.
                USER if wanted.user.is_empty() => value.clone_into(&mut wanted.user),
                UID if wanted.uid.is_empty() => value.clone_into(&mut wanted.uid),
                GROUP => wanted.groups.push(value.to_owned()),
                _ => {
                    let Some(key) = name.strip_prefix(EXTRA_PREFIX) else { continue };
                    wanted.extra.entry(extra_key(key)).or_default().push(value.to_owned());
                }
            }
            more |= name != USER;
        }
        if !wanted.user.is_empty() {
            return Ok(Some(wanted));
        }
        // An empty uid header is as none.
        more &= !(wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty());
        if more {
            let message = format!("requested {} without impersonating a user name", wanted.describe());
            return Err(Status::bad_request(message));
        }
        Ok(None)
    }

    /// The user that `request`, with the requester as its user, goes on as. The error is a 403.
    pub fn authorize(
        &self,
        authorizer: &dyn Authorizer,
        request: &Attributes<'_>,
    ) -> Result<UserInfo, Status> {
        let mut first_error = None;
        for mode in Mode::ALL {
            if !mode.applies(self, request.user) {
                continue;
            }
            match mode.check(self, authorizer, request) {
                Ok(user) => return Ok(user),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        // The last mode applies to everybody, so there is an error by now.
        Err(first_error.unwrap_or_else(|| forbidden(request, "")))
    }

    fn only_name(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// As Go prints the request's user with `%#v`, which is what upstream's message has.
    fn describe(&self) -> String {
        let list = |values: &[String]| {
            let values: Vec<_> = values.iter().map(|value| go_quote(value)).collect();
            format!("[]string{{{}}}", values.join(", "))
        };
        let groups = match self.groups.as_slice() {
            [] => "[]string(nil)".to_owned(),
            groups => list(groups),
        };
        let extra = match self.extra.len() {
            0 => "map[string][]string(nil)".to_owned(),
            _ => {
                let pairs: Vec<_> = self
                    .extra
                    .iter()
                    .map(|(key, values)| format!("{}:{}", go_quote(key), list(values)))
                    .collect();
                format!("map[string][]string{{{}}}", pairs.join(", "))
            }
        };
        let (name, uid) = (go_quote(&self.user), go_quote(&self.uid));
        format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{extra}}}")
    }
}

/// Header names can not hold every key, so keys are percent-encoded; one that is not stays as it is.
fn extra_key(encoded: &str) -> String {
    let encoded = encoded.to_ascii_lowercase();
    let well_formed = encoded
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|c| c.is_ascii_hexdigit()));
    match percent_decode_str(&encoded).decode_utf8() {
        Ok(key) if well_formed => key.into_owned(),
        _ => encoded,
    }
}

/// The node of a user name, if it is that of a node.
fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(user::NODE_PREFIX).filter(|name| dns::dns1123_subdomain(name).is_empty())
}

/// The ways to be allowed to impersonate, in the order in which they are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account on a node acts as that node.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Any other user, with groups, uid and extra.
    UserInfo,
    /// The way before constraints; covers everything.
    Legacy,
}

impl Mode {
    const ALL: [Self; 5] =
        [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy];

    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Legacy => "impersonate".to_owned(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    fn applies(self, wanted: &Impersonation, requester: &UserInfo) -> bool {
        let node = node_name(&wanted.user);
        let service_account = user::split_service_account(&wanted.user);
        match self {
            Self::AssociatedNode => {
                let own_node = match requester.extra().get(user::NODE_NAME).map(Vec::as_slice) {
                    Some([own]) => Some(own.as_str()),
                    _ => None,
                };
                wanted.only_name()
                    && node.is_some()
                    && requester.as_service_account().is_some()
                    && own_node == node
            }
            Self::ArbitraryNode => wanted.only_name() && node.is_some(),
            Self::ServiceAccount => wanted.only_name() && service_account.is_some(),
            Self::UserInfo => node.is_none() && service_account.is_none(),
            Self::Legacy => true,
        }
    }

    fn check(
        self,
        wanted: &Impersonation,
        authorizer: &dyn Authorizer,
        request: &Attributes<'_>,
    ) -> Result<UserInfo, Status> {
        // Of a service account that acts as its node, only the kinds of its extra values count, not the values.
        let constrained_user;
        let requester = match self {
            Self::AssociatedNode => {
                let keys = request.user.extra().keys().cloned().collect();
                let key = "authentication.kubernetes.io/associated-node-keys".to_owned();
                constrained_user = request.user.clone().with_extras([(key, keys)].into());
                &constrained_user
            }
            _ => request.user,
        };
        if self != Self::Legacy {
            let verb = format!("impersonate-on:{}:{}", self.name(), request.verb);
            require(authorizer, &Attributes { user: requester, verb: &verb, ..*request })?;
        }
        let check = Check { mode: self, verb: &self.verb(), requester, authorizer };
        let groups = check.name(wanted)?;
        check.uid(&wanted.uid)?;
        check.groups(&wanted.groups)?;
        check.extra(&wanted.extra)?;
        let user = UserInfo::new(&*wanted.user)
            .with_uid(&*wanted.uid)
            .with_groups(groups)
            .with_extras(wanted.extra.clone());
        Ok(with_standard_group(user))
    }
}

/// Everybody is either authenticated or not, except where the request says that it is not.
fn with_standard_group(user: UserInfo) -> UserInfo {
    let anonymous = user.name() == user::ANONYMOUS;
    if user.in_group(user::UNAUTHENTICATED) {
        return user;
    }
    if !anonymous {
        return user.authenticated();
    }
    let groups: Vec<_> = user.groups().iter().cloned().chain([user::UNAUTHENTICATED.to_owned()]).collect();
    user.with_groups(groups)
}

/// The questions about each part of the wanted user.
struct Check<'a> {
    mode: Mode,
    verb: &'a str,
    requester: &'a UserInfo,
    authorizer: &'a dyn Authorizer,
}

impl<'a> Check<'a> {
    fn attributes(&self, api_group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let resource = Attributes::resource(self.requester, self.verb, resource);
        Attributes { api_group, api_version: "v1", name, ..resource }
    }

    fn constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    /// The API group of users and groups; upstream's old way had them in the core group.
    fn user_group(&self) -> &'static str {
        if self.constrained() { AUTHENTICATION_GROUP } else { "" }
    }

    /// Checks the name, and returns the groups that come with it.
    fn name(&self, wanted: &'a Impersonation) -> Result<Vec<String>, Status> {
        let mut groups = wanted.groups.clone();
        let mut attributes = self.attributes(self.user_group(), "users", &wanted.user);
        if let Some(node) = node_name(&wanted.user).filter(|_| self.constrained()) {
            attributes = Attributes { resource: "nodes", name: node, ..attributes };
            groups = vec![user::NODES.to_owned()];
        }
        if let Some((namespace, name)) = user::split_service_account(&wanted.user) {
            attributes = Attributes { resource: "serviceaccounts", namespace, name, ..attributes };
            if groups.is_empty() {
                groups = user::service_account_groups(namespace).into();
            }
        }
        require(self.authorizer, &attributes)?;
        Ok(groups)
    }

    fn uid(&self, uid: &'a str) -> Result<(), Status> {
        if uid.is_empty() {
            return Ok(());
        }
        require(self.authorizer, &self.attributes(AUTHENTICATION_GROUP, "uids", uid))
    }

    fn groups(&self, groups: &'a [String]) -> Result<(), Status> {
        let attributes = self.attributes(self.user_group(), "groups", "");
        if self.constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(forbidden(&attributes, "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == user::MASTERS) {
                let attributes = Attributes { name: user::MASTERS, ..attributes };
                return Err(forbidden(&attributes, "impersonating the system:masters group is not allowed"));
            }
            let all = Attributes { name: "*", ..attributes };
            if groups.len() >= MANY && self.authorizer.authorize(&all).is_allowed() {
                return Ok(());
            }
        }
        groups
            .iter()
            .try_for_each(|group| require(self.authorizer, &Attributes { name: group, ..attributes }))
    }

    fn extra(&self, extra: &'a Extra) -> Result<(), Status> {
        let attributes = self.attributes(AUTHENTICATION_GROUP, "userextras", "");
        if self.constrained() {
            validate_extra(extra).map_err(|problem| forbidden(&attributes, &problem))?;
            let all = Attributes { subresource: "*", name: "*", ..attributes };
            let count: usize = extra.values().map(Vec::len).sum();
            if count >= MANY && self.authorizer.authorize(&all).is_allowed() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                require(self.authorizer, &Attributes { subresource: key, name: value, ..attributes })?;
            }
        }
        Ok(())
    }
}

/// What the constrained ways do not let through in extra.
fn validate_extra(extra: &Extra) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".to_owned());
        }
        if !key.split_once('/').is_some_and(|(domain, path)| is_domain(domain) && !path.is_empty()) {
            let problem =
                format!("{} must be a domain-prefixed path (such as \"acme.io/foo\")", go_quote(key));
            return Err(format!("impersonating an invalid key in extra is not allowed: {problem}"));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".to_owned());
        }
    }
    Ok(())
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c))
}

fn require(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let decision = authorizer.authorize(attributes);
    if decision.is_allowed() { Ok(()) } else { Err(forbidden(attributes, decision.reason())) }
}

/// One line for the log: `jane[dev,ops]`.
pub fn describe_user(user: &UserInfo) -> String {
    let name = if user.name().is_empty() { "<empty>" } else { user.name() };
    match user.groups() {
        [] => name.to_owned(),
        groups => format!("{name}[{}]", groups.join(",")),
    }
}

#[cfg(test)]
mod tests;
