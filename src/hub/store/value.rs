use crate::hub::domain::Epoch;

/// A value of a statement; the same statement runs on both databases.
pub(super) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
}

macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$(crate::hub::store::value::Arg::from($value)),*] };
}
pub(super) use args;

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Epoch> for Arg {
    fn from(value: Epoch) -> Self {
        Self::Int(Some(value.0))
    }
}
impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<Option<Epoch>> for Arg {
    fn from(value: Option<Epoch>) -> Self {
        Self::Int(value.map(|e| e.0))
    }
}
impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}
