//! Placeholder until apimachinery's selector lands: equality terms only.
#[derive(Clone, Debug)]
pub(super) struct Selector(Vec<(String, String)>);
impl Selector {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|t| t.split_once('=').map(|(k, v)| (k.into(), v.into())).ok_or_else(|| t.to_string()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
    pub(super) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|(k, v)| label(k) == Some(v.as_str()))
    }
}
