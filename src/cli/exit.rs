use crate::core::Class;

/// The exit code of each class of problem; documented in `docs/reference/exit-codes.md`.
pub const fn exit_code(class: Class) -> u8 {
    match class {
        Class::Input => 2,
        Class::Preflight => 3,
        Class::Connect => 4,
        Class::Bundle => 5,
        Class::Machine => 6,
        Class::Step => 7,
        Class::Verify => 8,
        Class::Busy => 9,
        Class::Conflict => 10,
        Class::Quota => 11,
        Class::Closed => 12,
        Class::Denied => 13,
        Class::Slot => 14,
        Class::Internal => 70,
        Class::Cancelled => 130,
    }
}

/// The exit code of what SIGTERM stopped, as of a program that takes no care of it: 128 and the signal's number.
pub const TERMINATED: u8 = 143;

/// What each exit code means, in the order of the reference.
pub const MEANINGS: &[(u8, &str)] = &[
    (0, "It worked; nothing had to be done, or all of it is done."),
    (
        2,
        "The command line, a profile, a hosts file or another file on this computer is wrong; where a run had begun, the same command goes on.",
    ),
    (3, "A host or this computer does not fit; no host that does not fit was changed."),
    (4, "A host or a hub could not be reached or did not let us in, or a hub cannot write."),
    (5, "A bundle or a download is broken, missing or of the wrong kind."),
    (6, "The engine of local machines failed."),
    (7, "A step on a host failed; the same command continues the run."),
    (8, "The lab does not work as asked, or a host is not clean."),
    (
        9,
        "Another run holds the lab or a host, another hub the database, or the hub has too much to do: the same command works later.",
    ),
    (10, "A slot is taken, or a booking was changed or has moved on in between."),
    (11, "A quota of hours or of bookings ahead is used up."),
    (12, "A server takes no bookings then: closed, in maintenance, out of use, too late or too far ahead."),
    (13, "The hub does not know you, or does not let you."),
    (14, "A slot has not begun, is not open yet, or is over."),
    (70, "A defect of kubecamp."),
    (130, "The user said no, or pressed Ctrl-C."),
    (TERMINATED, "SIGTERM stopped it, otherwise as Ctrl-C does."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Code;

    #[test]
    fn every_class_has_a_documented_code() {
        for code in Code::ALL {
            let exit = exit_code(code.class());
            assert!(MEANINGS.iter().any(|(n, _)| *n == exit), "{code}");
        }
    }
}
