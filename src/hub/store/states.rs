/// The states for which a method of [`State`](crate::hub::domain::State) says yes, as SQL lists them after `IN`: a literal
/// for `concat!`, since statements are fixed texts.
macro_rules! states {
    (is_unbegun) => {
        "('booked', 'delayed')"
    };
    (is_ahead) => {
        "('offered', 'booked', 'delayed')"
    };
    (is_usable) => {
        "('booked', 'delayed', 'arming', 'active')"
    };
    (is_endable) => {
        "('waitlisted', 'offered', 'booked', 'delayed', 'arming', 'active')"
    };
    (is_live) => {
        "('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting')"
    };
    (is_begun) => {
        "('arming', 'active', 'ending', 'saving', 'resetting')"
    };
    (is_given_up) => {
        "('cancelled', 'no-show')"
    };
    (is_final) => {
        "('done', 'cancelled', 'no-show', 'quarantined')"
    };
}
pub(super) use states;

#[cfg(test)]
mod tests {
    use crate::hub::domain::State;

    #[test]
    fn each_list_is_what_its_method_says() {
        macro_rules! agree {
            ($($method:ident),+) => {
                $(
                    let named = State::ALL.into_iter().filter(|state| state.$method());
                    let named: Vec<String> = named.map(|state| format!("'{state}'")).collect();
                    assert_eq!(states!($method), format!("({})", named.join(", ")), "{}", stringify!($method));
                )+
            };
        }
        agree!(is_unbegun, is_ahead, is_usable, is_endable, is_live, is_begun, is_given_up, is_final);
    }
}
