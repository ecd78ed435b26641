use std::{
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::super::Context;
use crate::{
    cli::{
        args::{AdminLinkArgs, CopyArgs, ServeArgs},
        output,
        settings::Places,
    },
    core::{Code, Problem, Problems, shell::quote},
    hub::{
        clerk::Clerk,
        desk::{Caller, Desk, NewPerson},
        domain::{PersonId, Role},
        http::{AppState, Clock, GateKeys, Listen, Serving, Site, is_loopback, raise_open_files, serve as serve_http},
        private,
        store::{Backups, Store},
    },
};

/// How long the end of the hub waits for each thing that was told to stop.
const LAST_STEP: Duration = Duration::from_secs(10);
/// A round of the clerk that takes longer is given up: what it has done by then stays, the rest is due in the next one.
const ROUND: Duration = Duration::from_secs(60);

/// `kubecamp hub serve`: the API, the pages and the clerk, until it is told to stop.
pub(super) async fn serve(cx: &Context, args: ServeArgs) -> Result<(), Problems> {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    is_private(&args)?;
    log(&args.log);
    cx.stop.in_order();
    raise_open_files();
    let secure = tls.is_some();
    let (database, folder) = database(&cx.places, args.database.as_deref());
    if args.database.is_none() {
        let fail = |e| Problem::new(Code::LocalFile, format!("cannot make {}", folder.display())).because(e);
        private::make_folder(&folder).and_then(|()| private::tighten(&folder)).map_err(fail)?;
    }
    let keys = args.keys.clone().unwrap_or_else(|| folder.join("keys"));
    let made_anew = anew(&database, &keys);
    let backups = args.copies.folder(&folder);
    // Ctrl-C ends a copy of the database too, which may take minutes; of its tables nothing is changed by halves.
    let opening = Store::open_alone(&database, copied_to(backups.as_deref()));
    let store = cx.stop.unless_stopped(async { opening.await.map_err(Problems::from) }).await?;
    tell_of_copy(&store);
    made_anew.iter().for_each(|line| output::say(line));
    let keys = GateKeys::in_folder(&keys)?;
    store.sign_by(keys.print()?).await?;
    let desk = Desk::new(store);
    let mut site = Site::new(args.public_url.clone(), secure, args.behind_proxy, args.rate);
    site.keys = Some(keys);
    let state = AppState { desk: desk.clone(), clock: Clock::system(), site: Arc::new(site) };
    let serving = Serving::bind(&args.listen, tls).await?;
    let shown = match &serving.listen {
        Listen::Tcp(addr) if secure => format!("https://{addr}"),
        Listen::Tcp(addr) => format!("http://{addr}"),
        unix @ Listen::Unix(_) => unix.to_string(),
    };
    output::say(&format!("kubecamp hub listens on {shown}"));
    let people = desk.people(&Caller::Console, state.now()).await?;
    if !people.iter().any(|p| p.role == Role::Admin && p.active) {
        output::say(&format!("There is no admin yet. On this computer: {}", admin_link_command(&args)));
        // Where people reach it: by the other address, behind a proxy, there would be no TLS.
        let hub = args.public_url.as_deref().map_or(shown.as_str(), |url| url.trim_end_matches('/'));
        output::say(&format!("Then, with what it prints: kubecamp login --hub {} --link", quote(hub)));
    }
    run(serving, state, cx.cancel.clone()).await;
    let _ = tokio::time::timeout(LAST_STEP, desk.close()).await;
    output::say("kubecamp hub stopped");
    Ok(())
}

/// What is to be said of a SQLite file that is not there yet, or is empty: its name may be a mistyped one. By the keys beside
/// it a hub with another file is known.
fn anew(database: &str, keys: &Path) -> Vec<String> {
    let Some(path) = database.strip_prefix("sqlite://") else { return vec![] };
    // What a hub that was killed wrote last may be beside the file alone.
    let holds = |file: &str| fs::metadata(file).is_ok_and(|file| file.len() > 0);
    if holds(path) || holds(&format!("{path}-wal")) {
        return vec![];
    }
    let mut lines = vec![format!("The database {path} is a new one, and empty.")];
    if keys.join("user_ca").exists() {
        let keys = keys.display();
        lines.push(format!("But the keys in {keys} are of a hub that was there before: is --database the right one?"));
    }
    lines
}

/// Refuses a hub to which people would send their sessions so that others read them.
fn is_private(args: &ServeArgs) -> Result<(), Problem> {
    if args.tls_cert.is_some() {
        return Ok(());
    }
    if !args.behind_proxy {
        if is_loopback(&args.listen) {
            return Ok(());
        }
        return Err(Problem::new(Code::HubListen, format!("{} is open to others, and there is no TLS", args.listen)));
    }
    // That the proxy does TLS is known by the address alone: without it cookies would go over plain HTTP too.
    if args.public_url.as_deref().is_some_and(is_kept) {
        return Ok(());
    }
    let what = "--behind-proxy needs the https:// address that people type";
    Err(Problem::new(Code::Usage, what).hint("Add it: --public-url https://NAME."))
}

/// Whether what is sent to an address is read by nobody else: by TLS, or since it does not leave the computer.
fn is_kept(url: &str) -> bool {
    let here = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    url.starts_with("https://") || reqwest::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(here))
}

/// How to make the first admin of this hub. An address of PostgreSQL may hold a password, so it is not shown.
fn admin_link_command(args: &ServeArgs) -> String {
    let database = match args.database.as_deref() {
        None => String::new(),
        Some(url) if url.starts_with("sqlite://") => format!(" --database {}", quote(url)),
        Some(_) => " --database postgres://..., as for this hub".to_owned(),
    };
    let site = args.public_url.as_ref().map(|url| format!(" --public-url {}", quote(url))).unwrap_or_default();
    format!("kubecamp hub admin-link LOGIN{site}{database}")
}

/// All that a hub does, until `stop`.
async fn run(serving: Serving, state: AppState, stop: CancellationToken) {
    // No redirects: a webhook goes where it was told, or nowhere.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap_or_default();
    let clerk = Clerk::new(state.desk.clone(), client).of_hub_begun(state.now());
    let rounds = tokio::spawn(settle(clerk.clone(), state.clone(), stop.clone()));
    let hooks = tokio::spawn(send_hooks(clerk, state.clone(), stop.clone()));
    serve_http(serving, state, stop).await;
    for task in [rounds, hooks] {
        end(task).await;
    }
}

/// Lets the clerk do its round each second.
async fn settle(clerk: Clerk, state: AppState, stop: CancellationToken) {
    let mut pulse = pulse();
    for number in 0u64.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        state.site.rounds.begin();
        bounded("clerk", ROUND, round(&clerk, &state, number)).await;
    }
}

/// A round of the clerk, which goes by the clock: by a wrong one it would take slots away for good, and a clock may jump from
/// one second to the next. Nor does it go by one that nobody could compare.
async fn round(clerk: &Clerk, state: &AppState, number: u64) {
    if let Err(problem) = compare(state).await {
        tracing::error!(%problem, "clerk");
        return;
    }
    if state.site.rounds.are_halted() {
        state.site.rounds.done();
        return;
    }
    let now = state.now();
    match clerk.settle(now).await {
        Ok(done) => state.site.metrics.ticked(now, done),
        Err(problem) => tracing::error!(%problem, "clerk"),
    }
    if number.is_multiple_of(3600)
        && let Err(problem) = clerk.tidy(now).await
    {
        tracing::error!(%problem, "clerk");
    }
    state.site.rounds.done();
}

/// Compares the hub's clock with its database's, where that has one of its own.
async fn compare(state: &AppState) -> Result<(), Problem> {
    let before = state.now();
    if let Some(theirs) = state.desk.clock(before).await? {
        state.site.rounds.compare(before, theirs, state.now());
    }
    Ok(())
}

/// Does some work as long as it may take: neither what hangs nor what fails keeps the next from being begun.
async fn bounded(what: &str, limit: Duration, work: impl Future<Output = ()>) {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!(what, "it failed in the midst of its work, and begins anew"),
        Err(_) => tracing::error!(what, "it took more than {} s, and begins anew", limit.as_secs()),
    }
}

/// Sends webhooks, beside the clerk's rounds and cut off at the end: what did not arrive is in the outbox.
async fn send_hooks(clerk: Clerk, state: AppState, stop: CancellationToken) {
    let mut pulse = pulse();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let sends = async {
            match clerk.send_hooks(state.now()).await {
                Ok(arrived) => state.site.metrics.sent(arrived),
                Err(problem) => tracing::error!(%problem, "webhooks"),
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = bounded("webhooks", ROUND, sends) => {}
        }
    }
}

fn pulse() -> tokio::time::Interval {
    let mut pulse = tokio::time::interval(Duration::from_secs(1));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pulse
}

/// Waits for a task that was told to stop; whatever it does is a transaction, so it may be cut off too.
async fn end(task: tokio::task::JoinHandle<()>) {
    let handle = task.abort_handle();
    if tokio::time::timeout(LAST_STEP, task).await.is_err() {
        tracing::warn!("the clerk did not end in time");
        handle.abort();
    }
}

/// `kubecamp hub admin-link`: the first admin, or one who lost the key.
///
/// It needs the database, so no token.
pub(super) async fn admin_link(cx: &Context, args: AdminLinkArgs) -> Result<(), Problems> {
    let (database, folder) = database(&cx.places, args.database.as_deref());
    let backups = args.copies.folder(&folder);
    let store = Store::open_existing(&database, copied_to(backups.as_deref())).await?;
    tell_of_copy(&store);
    let desk = Desk::new(store);
    let now = Clock::system().now();
    let people = desk.people(&Caller::Console, now).await?;
    match people.iter().find(|p| p.id == args.login) {
        Some(there) if there.role != Role::Admin || !there.active => {
            let what = format!("{} is there, but is not an active admin", there.id);
            return Err(Problem::new(Code::HubExists, what).into());
        }
        Some(_) => {}
        None => {
            let (id, name) = (args.login.clone(), args.login.to_string());
            let new = NewPerson { id, name, role: Role::Admin, active: None, zone: None, keys: vec![] };
            desk.put_person(&Caller::Console, now, &new, None).await?;
            output::say(&new_admin(&args.login, people.iter().any(|p| p.role == Role::Admin && p.active)));
        }
    }
    let made = desk.make_link(&Caller::Console, now, &args.login).await?;
    desk.close().await;
    let site = args.public_url.as_deref().map(|url| url.trim_end_matches('/'));
    let base = site.map(|url| format!("{url}/sign-in#")).unwrap_or_default();
    output::data(&format!("{base}{}\n", made.text.expose()));
    let (hub, is) = site.map_or(("URL", ", where URL is what the hub said it listens on"), |url| (url, ""));
    output::say(&format!(
        "Good once, for 15 minutes: kubecamp login --hub {hub} --link{is}; or the hub's sign-in page."
    ));
    Ok(())
}

/// Says that an admin was made, which a login that was mistyped does too where there are others.
fn new_admin(login: &PersonId, are_others: bool) -> String {
    match are_others {
        false => format!("Made the admin {login}."),
        true => format!("Made the new admin {login}. If you meant another one: kubecamp hub user disable {login}"),
    }
}

/// The database that was named or the default one, and the folder for what belongs to the hub besides.
fn database(places: &Places, named: Option<&str>) -> (String, PathBuf) {
    let own = places.labs.with_file_name("hub");
    let Some(url) = named else { return (format!("sqlite://{}", own.join("hub.db").display()), own) };
    let folder = match url.strip_prefix("sqlite://") {
        Some(path) => PathBuf::from(path).parent().map(PathBuf::from).unwrap_or_default(),
        None => own,
    };
    (url.to_owned(), folder)
}

impl CopyArgs {
    /// Where copies go, with what belongs to the hub in `own`; none where there is one already.
    fn folder(&self, own: &Path) -> Option<PathBuf> {
        (!self.backed_up).then(|| self.backups.clone().unwrap_or_else(|| own.join("backups")))
    }
}

fn copied_to(folder: Option<&Path>) -> Backups<'_> {
    folder.map_or(Backups::Made, Backups::In)
}

/// Says where the database is as it was before its tables were changed, and which older copies went for that one.
fn tell_of_copy(store: &Store) {
    if let Some(copy) = store.backup() {
        output::say(&format!("The database's tables were brought up to date. As it was before: {}", copy.display()));
    }
    let gone: Vec<_> = store.removed_backups().iter().map(|copy| copy.display().to_string()).collect();
    if !gone.is_empty() {
        output::say(&format!("The newest three copies of before stay. Removed: {}", gone.join(", ")));
    }
}

/// One line or JSON object per request on standard error; `KUBECAMP_LOG` narrows it.
fn log(format: &str) {
    let filter = EnvFilter::try_from_env("KUBECAMP_LOG").unwrap_or_else(|_| EnvFilter::new("warn,kubecamp=info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A line that cannot be written, on a full disk, is lost; complaining about it there too would end the request.
    let lines = lines.log_internal_errors(false);
    // Only the first caller may set it; a test that did so before is fine.
    let _ = if format == "json" { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use clap::Parser;

    use super::{admin_link_command, bounded, is_private};
    use crate::{
        cli::args::{Args, Command, HubCommand, ServeArgs},
        core::Code,
    };

    fn args_of(more: &[&str]) -> ServeArgs {
        let args = ["kubecamp", "hub", "serve"].iter().chain(more).copied();
        match Args::try_parse_from(args).unwrap().command {
            Command::Hub(HubCommand::Serve(args)) => args,
            _ => panic!("{more:?}"),
        }
    }

    #[test]
    fn sessions_are_sent_where_nobody_else_reads_them() {
        let code = |more: &[&str]| is_private(&args_of(more)).err().map(|problem| problem.code);
        assert_eq!(code(&[]), None);
        assert_eq!(code(&["--behind-proxy"]), Some(Code::Usage), "on loopback too");
        for (more, want) in [
            ("", Some(Code::HubListen)),
            ("--public-url https://hub.example.org", Some(Code::HubListen)),
            ("--tls-cert c --tls-key k", None),
            ("--behind-proxy", Some(Code::Usage)),
            ("--behind-proxy --public-url http://hub.example.org", Some(Code::Usage)),
            ("--behind-proxy --public-url http://localhost.example.org", Some(Code::Usage)),
            ("--behind-proxy --public-url https://hub.example.org", None),
            ("--behind-proxy --public-url http://localhost:8420", None),
        ] {
            let args: Vec<&str> = ["--listen", "0.0.0.0:80"].into_iter().chain(more.split_whitespace()).collect();
            assert_eq!(code(&args), want, "{more}");
        }
    }

    #[tokio::test]
    async fn what_hangs_or_fails_comes_to_an_end() {
        bounded("test", Duration::from_millis(10), std::future::pending()).await;
        bounded("test", Duration::from_secs(60), async { "x".parse::<u8>().map(drop).unwrap() }).await;
    }

    #[test]
    fn copies_go_beside_the_data_unless_told_otherwise() {
        let folder = |more: &[&str]| args_of(more).copies.folder(Path::new("/own"));
        assert_eq!(folder(&[]), Some("/own/backups".into()));
        assert_eq!(folder(&["--backups", "/far"]), Some("/far".into()));
        assert_eq!(folder(&["--backed-up"]), None);
        assert!(Args::try_parse_from(["kubecamp", "hub", "serve", "--backed-up", "--backups", "/far"]).is_err());
    }

    #[test]
    fn the_first_admin_is_made_by_a_whole_command_without_a_password() {
        let told = |more: &[&str]| admin_link_command(&args_of(more));
        assert!(told(&["--database", "sqlite:///var/a b.db"]).ends_with(" LOGIN --database 'sqlite:///var/a b.db'"));
        let site = told(&["--database", "postgres://hub:secret@db/hub", "--public-url", "https://hub.example.org"]);
        assert!(site.contains(" LOGIN --public-url https://hub.example.org --database ") && !site.contains("secret"));
    }
}
