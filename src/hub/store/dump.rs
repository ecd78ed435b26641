use std::{
    collections::HashMap,
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::process::Command;

use super::error::problem;
use crate::{
    core::{Code, Problem},
    hub::private::make_folder,
};

/// How long a copy may take. Who waits for the tables meanwhile has more patience than that.
const LIMIT: Duration = Duration::from_secs(600);
/// How much of what a program complains about is told.
const LAST_LINES: usize = 5;

/// Where a PostgreSQL is copied to before its tables are changed.
#[derive(Debug, Clone, Copy)]
pub enum Backups<'a> {
    /// Into a new file of this folder, which is made when it is needed.
    In(&'a Path),
    /// Nowhere: whoever opens it has a copy.
    Made,
}

/// Copies a PostgreSQL whose tables are of edition `had` and are about to be changed, into a new file of `folder`; the
/// copy.
///
/// The connection is the one whose lock keeps everybody else from changing them meanwhile.
pub(super) async fn dump(
    on: &mut PgConnection,
    options: &PgConnectOptions,
    had: i64,
    folder: &Path,
) -> Result<PathBuf, Problem> {
    let name: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *on).await.map_err(problem)?;
    let fail = |error: io::Error| {
        refused(format!("no file can be written in {}", folder.display()))
            .because(error)
            .hint("Name another folder with --backups, or make a copy yourself and add --backed-up.")
    };
    // Absolute, so that no name of a folder is taken for an option.
    let folder = std::path::absolute(folder).map_err(fail)?;
    make_folder(&folder).map_err(fail)?;
    // For this user alone, and gone unless it is kept below: half a copy would be taken for what one can go back to.
    let part = tempfile::Builder::new().suffix(".part").tempfile_in(&folder).map_err(fail)?;
    run(dumper(options, part.path())).await?;
    let mut reader = program("pg_restore", options);
    reader.arg("--list").arg(part.path());
    if !is_a_hubs(&run(reader).await?) {
        return Err(refused("what pg_dump wrote holds no tables of a hub".into()));
    }
    // A connection that was cut has let go of the lock.
    on.ping().await.map_err(problem)?;
    part.as_file().sync_all().map_err(fail)?;
    let copy = folder.join(file_name(&name, had, Timestamp::now()));
    part.persist_noclobber(&copy).map_err(|unkept| fail(unkept.error))?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
    Ok(copy)
}

fn refused(why: String) -> Problem {
    Problem::new(Code::HubBackup, format!("the database was not copied, so its tables were not changed: {why}"))
}

/// A copy's name: of which database, before it left which edition, and when. No two databases of a server share one, since of
/// each only the newest stay.
fn file_name(database: &str, had: i64, at: Timestamp) -> String {
    let plain: String = database
        .bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("{plain}.before-{had}.{}.dump", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Whether a list of what is in a copy names the rows of the table that every hub has.
fn is_a_hubs(list: &str) -> bool {
    list.lines().any(|line| line.contains(" TABLE DATA ") && line.contains(" _sqlx_migrations "))
}

/// The program that writes a copy to a file, whose mode it leaves as it is.
fn dumper(options: &PgConnectOptions, to: &Path) -> Command {
    let mut command = program("pg_dump", options);
    command.args(["--format=custom", "--no-password", "--file"]).arg(to);
    command
}

/// One of PostgreSQL's programs. It connects as the hub does, by its environment: what a program is called with, others see.
fn program(name: &str, options: &PgConnectOptions) -> Command {
    let mut command = Command::new(name);
    // They would lead elsewhere.
    for variable in ["PGHOSTADDR", "PGSERVICE", "PGTARGETSESSIONATTRS", "PGDATABASE", "PGOPTIONS"] {
        command.env_remove(variable);
    }
    command.envs(environment(options)).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What such a program has to know, by the names that PostgreSQL's library gives it.
fn environment(options: &PgConnectOptions) -> Vec<(&'static str, String)> {
    let host = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        // An address of IPv6 has brackets in a URL only.
        None => options.get_host().trim_matches(['[', ']']).to_owned(),
    };
    let mut set = vec![
        ("PGHOST", host),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", options.get_username().to_owned()),
        ("PGCONNECT_TIMEOUT", "10".to_owned()),
    ];
    set.extend(options.get_database().map(|name| ("PGDATABASE", name.to_owned())));
    set.extend(options.get_options().map(|words| ("PGOPTIONS", words.to_owned())));
    set.extend(untold(options));
    set
}

/// The password and what TLS needs, which options tell only as an address.
fn untold(options: &PgConnectOptions) -> Vec<(&'static str, String)> {
    // User and place are told anyway, and not each of them can stand in an address.
    let mut url = options.clone().username("x").socket("/x").to_url_lossy();
    let mut told: HashMap<String, String> = url.query_pairs().into_owned().collect();
    // It is written there as the words of a query are, and so read as one.
    let password = url.password().map(|text| format!("password={text}"));
    url.set_query(password.as_deref());
    told.extend(url.query_pairs().into_owned());
    let mut set = vec![];
    for (word, variable) in [("password", "PGPASSWORD"), ("sslmode", "PGSSLMODE")] {
        set.extend(told.get(word).map(|value| (variable, value.clone())));
    }
    for (word, variable) in [("sslrootcert", "PGSSLROOTCERT"), ("sslcert", "PGSSLCERT"), ("sslkey", "PGSSLKEY")] {
        let file = told.get(word).and_then(|value| value.strip_prefix("file: "));
        set.extend(file.map(|file| (variable, file.to_owned())));
    }
    // Without a file of its own the hub trusts the public authorities, PostgreSQL's library nobody.
    if matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) && !told.contains_key("sslrootcert") {
        set.push(("PGSSLROOTCERT", "system".to_owned()));
    }
    set
}

/// What a program says, or why it failed.
async fn run(mut command: Command) -> Result<String, Problem> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let out = match tokio::time::timeout(LIMIT, command.output()).await {
        Err(_) => return Err(refused(format!("{name} did not end within {} minutes", LIMIT.as_secs() / 60))),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
            return Err(refused(format!("{name} is not installed")));
        }
        Ok(Err(error)) => return Err(refused(format!("{name} cannot be run")).because(error)),
        Ok(Ok(out)) => out,
    };
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].iter().copied();
    Err(refused(format!("{name} failed ({})", out.status)).detail(last))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    /// What a program is called with, and what is set for it.
    fn told(url: &str) -> (Vec<String>, HashMap<String, String>) {
        let command = dumper(&PgConnectOptions::from_str(url).unwrap(), Path::new("/var/copy.part"));
        let text = |word: &std::ffi::OsStr| word.to_str().unwrap().to_owned();
        let set = command.as_std().get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
        (command.as_std().get_args().map(text).collect(), set.collect())
    }

    #[test]
    fn a_password_is_in_the_environment_and_in_no_argument() {
        let (args, set) = told("postgres://hub%40x:p%40ss%2F+%25w%C3%B6rd@db.example.org:5433/camp");
        assert_eq!(args, ["--format=custom", "--no-password", "--file", "/var/copy.part"]);
        for (name, value) in [
            ("PGHOST", "db.example.org"),
            ("PGPORT", "5433"),
            ("PGUSER", "hub@x"),
            ("PGPASSWORD", "p@ss/+%wörd"),
            ("PGDATABASE", "camp"),
            ("PGSSLMODE", "prefer"),
        ] {
            assert_eq!(set.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn a_copy_is_made_of_the_database_that_the_hub_has() {
        let set = told("postgres://hub@localhost/camp?host=/run/pg&options=-c%20search_path%3Dkube").1;
        assert_eq!(set.get("PGHOST").map(String::as_str), Some("/run/pg"));
        assert_eq!(set.get("PGOPTIONS").map(String::as_str), Some("-c search_path=kube"));
        let set = told("postgres://hub@[2001:db8::1]/camp?sslmode=verify-full&sslrootcert=/etc/ca%20s.pem").1;
        assert_eq!(set.get("PGHOST").map(String::as_str), Some("2001:db8::1"));
        assert_eq!(set.get("PGSSLMODE").map(String::as_str), Some("verify-full"));
        assert_eq!(set.get("PGSSLROOTCERT").map(String::as_str), Some("/etc/ca s.pem"));
        let command = program("pg_dump", &PgConnectOptions::from_str("postgres://hub@db/camp").unwrap());
        let gone: Vec<_> = command.as_std().get_envs().filter(|(_, value)| value.is_none()).map(|(n, _)| n).collect();
        assert!(gone.contains(&std::ffi::OsStr::new("PGSERVICE")), "{gone:?}");
    }

    #[test]
    fn a_copy_says_of_what_and_when_and_stays_in_its_folder() {
        let at = Timestamp::from_second(1_000_000_000).unwrap();
        assert_eq!(file_name("camp-1", 2, at), "camp-1.before-2.20010909T014640Z.dump");
        assert_eq!(file_name("../a b", 2, at), "%2E%2E%2Fa%20b.before-2.20010909T014640Z.dump");
        assert_ne!(file_name("camp.a", 2, at), file_name("camp_a", 2, at), "each has copies of its own");
    }

    #[test]
    fn only_a_list_with_a_hubs_rows_is_whole() {
        let rows = "3570; 0 16391 TABLE DATA public _sqlx_migrations postgres";
        assert!(is_a_hubs(&format!(";\n; Archive created at 2026-11-24\n{rows}\n")));
        assert!(!is_a_hubs("3570; 0 16391 TABLE public _sqlx_migrations postgres\n"));
        assert!(!is_a_hubs(""));
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_not_there_is_told_by_its_last_words() {
        let mut sh = Command::new("sh");
        sh.args(["-c", "for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 3"]);
        let failed = run(sh).await.unwrap_err();
        assert_eq!(failed.code, Code::HubBackup);
        assert_eq!(failed.detail, ["line 3", "line 4", "line 5", "line 6", "line 7"]);
        assert!(failed.what.contains("sh failed (exit status: 3)"), "{failed}");
        let absent = run(Command::new("/nowhere/pg_dump")).await.unwrap_err();
        assert!(absent.code == Code::HubBackup && absent.what.contains("is not installed"), "{absent}");
        assert!(absent.all_hints()[0].contains("--backed-up"), "{absent}");
    }
}
