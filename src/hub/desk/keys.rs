//! People's public keys, as they are kept.

use crate::{
    core::{Code, Problem},
    hub::domain::{PersonId, is_same_key},
};

/// An RSA key of 16384 bits is shorter. The plan of a server has the keys of each slot in it, and agents take none of more
/// than 4 MiB: one person's keys must not keep it from everybody.
const LONGEST_KEY: usize = 4096;

/// Of a key's comment so many characters are kept: people know their keys by it.
const LONGEST_COMMENT: usize = 100;

/// What a public key looks like.
const PUBLIC: &str =
    "It is one line that begins with its kind, as ssh-ed25519, and is in a file whose name ends in .pub.";

/// Public keys, each once, written anew with what of their comment is plain text; one without any is called as its owner.
pub(super) fn plain_keys(id: &PersonId, lines: &[String]) -> Result<Vec<String>, Problem> {
    let bad = |what: String, hint: &str| Problem::new(Code::HubInvalid, what).hint(hint);
    if lines.len() > 20 {
        return Err(bad(format!("{id} has more than 20 keys"), "Give those alone that are in use."));
    }
    let mut keys: Vec<String> = vec![];
    for line in lines {
        if line.trim().len() > LONGEST_KEY {
            let what = format!("a key of {id} is longer than {LONGEST_KEY} characters");
            return Err(bad(what, "Make a shorter one: ssh-keygen -t ed25519."));
        }
        let mut key = russh::keys::ssh_key::PublicKey::from_openssh(line.trim())
            .map_err(|_| bad(format!("a key of {id} is not a public SSH key"), PUBLIC))?;
        let comment = plain_comment(key.comment().as_str_lossy());
        key.set_comment(if comment.is_empty() { id.as_str() } else { comment.as_str() });
        let plain = key.to_openssh().map_err(|_| bad(format!("a key of {id} cannot be written"), PUBLIC))?;
        if !keys.iter().any(|known| is_same_key(known, &plain)) {
            keys.push(plain);
        }
    }
    Ok(keys)
}

/// What of a key's comment can be shown anywhere: its letters, digits and signs, with single spaces.
fn plain_comment(comment: &str) -> String {
    let is_plain = |c: &char| c.is_alphanumeric() || c.is_ascii_graphic();
    let words = comment.split_whitespace().map(|word| word.chars().filter(is_plain).collect::<String>());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST_COMMENT).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_COMMENT, plain_comment};

    #[test]
    fn a_comment_is_kept_as_far_as_it_can_be_shown() {
        for (comment, kept) in [
            ("amy@laptop", "amy@laptop"),
            ("amy's  old\tlaptop ", "amy's old laptop"),
            ("李@电脑", "李@电脑"),
            ("a\u{1b}[31mb \u{202e} c", "a[31mb c"),
            ("\u{7}", ""),
            ("", ""),
        ] {
            assert_eq!(plain_comment(comment), kept, "{comment:?}");
        }
        assert_eq!(plain_comment(&"ab".repeat(LONGEST_COMMENT)).len(), LONGEST_COMMENT);
    }
}
