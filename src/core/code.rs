use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What kind of failure a code is; each class has one exit code (`cli/exit.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The command line, a profile, a hosts file or another file on this computer is wrong.
    Input,
    /// A host or this computer does not fit; nothing was changed there.
    Preflight,
    /// A host or a hub could not be reached or did not let us in, or a hub cannot write.
    Connect,
    /// A bundle or a download is broken, missing or of the wrong kind.
    Bundle,
    /// The engine of local machines failed.
    Machine,
    /// A step on a host failed; the run can be continued.
    Step,
    /// The lab came up but does not work as asked, or a host is not clean.
    Verify,
    /// Another run holds the lab, or another hub the database.
    Busy,
    /// Somebody else has or changed it: a slot, a booking.
    Conflict,
    /// A quota of the course is used up.
    Quota,
    /// A server takes no bookings then.
    Closed,
    /// The hub does not know the caller, or does not let them.
    Denied,
    /// A slot has not begun, or is over.
    Slot,
    /// The user said no, or pressed Ctrl-C.
    Cancelled,
    /// A defect of kubecamp itself.
    Internal,
}

macro_rules! codes {
    ($($variant:ident = $text:literal, $class:ident, $meaning:literal, $hint:literal;)*) => {
        /// The stable code of a problem: it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as users see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// What kind of failure it is.
            pub const fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class,)* }
            }

            /// One sentence for the reference.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }

            /// The hint shown when the problem itself has none.
            pub const fn hint(self) -> &'static str {
                match self { $(Code::$variant => $hint,)* }
            }
        }
    };
}

codes! {
    // Input
    Usage = "KC-USAGE", Input, "The command line is wrong.", "Run the command with --help.";
    ProfileSyntax = "KC-PROFILE-SYNTAX", Input, "The profile is not valid YAML or has an unknown or missing key.", "Compare it with a shipped one: kubecamp profile show 3x2c4g.";
    ProfileInvalid = "KC-PROFILE-INVALID", Input, "A value of the profile is impossible.", "Correct the value at the line and column given.";
    ProfileUnknown = "KC-PROFILE-UNKNOWN", Input, "No shipped profile or file has this name.", "kubecamp profile list shows the shipped ones.";
    HostsFile = "KC-HOSTS-FILE", Input, "The hosts file is not valid.", "See docs/guide/hosts.md for its keys.";
    ConfigFile = "KC-CONFIG-FILE", Input, "The settings in config.yaml are not valid.", "See docs/guide/slow-links.md for its keys.";
    HostSpec = "KC-HOST-SPEC", Input, "A host is not written as [user@]address[:port].", "Write it as root@192.0.2.10 or ubuntu@example.org:2222.";
    HostCount = "KC-HOST-COUNT", Input, "The number of hosts differs from the layout's nodes.", "Give one --host for each node, or choose another --layout.";
    LabUnknown = "KC-LAB-UNKNOWN", Input, "There is no lab of this name.", "kubecamp status --all lists the labs.";
    LabDiffers = "KC-LAB-DIFFERS", Input, "The lab exists with another profile or other hosts.", "Reset it first, or choose another --name.";
    LabNotUp = "KC-LAB-NOT-UP", Input, "The lab is known, and its cluster is not there.", "Run kubecamp up first.";
    LabNewer = "KC-LAB-NEWER", Input, "The lab was written by a newer kubecamp.", "Use that version for this lab; nothing is damaged.";
    LocalFile = "KC-LOCAL-FILE", Input, "A file or folder on this computer cannot be read or written.", "Check the path and its permissions.";
    BookWindow = "KC-BOOK-WINDOW", Input, "A time window is empty, too long or not possible.", "Give a start before the end, no longer than the course allows.";
    BookGrid = "KC-BOOK-GRID", Input, "A time is not on the course's raster.", "Begin and end on full steps, as at 14:00 or 14:30.";
    BookGap = "KC-BOOK-GAP", Input, "A local time does not exist because clocks are set forward.", "Choose another time.";
    BookLayout = "KC-BOOK-LAYOUT", Input, "No server makes the layout asked for, or none can hold it.", "Choose another layout; kubecamp hub server list shows the servers.";
    HubUnknown = "KC-HUB-UNKNOWN", Input, "The hub has no such person, group, course, server or booking.", "Check the spelling. What there is: kubecamp book ls, kubecamp hub server list, kubecamp hub course list, kubecamp hub group list, kubecamp hub user list.";
    HubExists = "KC-HUB-EXISTS", Input, "The hub has one of this name already.", "Choose another name, or change the one that exists.";
    HubInvalid = "KC-HUB-INVALID", Input, "A value is not possible.", "Correct the value named.";
    HubRoster = "KC-HUB-ROSTER", Input, "A line of the roster is wrong; nothing was imported.", "Correct the lines named and import it again.";
    HubKeyReused = "KC-HUB-KEY-REUSED", Input, "An Idempotency-Key was used before for another request.", "Use a fresh key for each new request.";
    HubRequest = "KC-HUB-REQUEST", Input, "A request cannot be read, or asks for what the hub does not serve.", "See docs/guide/api.md and /api/v1/openapi.json.";
    HubReason = "KC-HUB-REASON", Input, "An override needs a reason.", "Say why with --reason; people who are concerned will see it.";
    // Preflight
    HubListen = "KC-HUB-LISTEN", Preflight, "The hub cannot listen there.", "Give an address that is free; outside of loopback add --tls-cert and --tls-key, or --behind-proxy.";
    HubNewer = "KC-HUB-NEWER", Preflight, "The database was made by a newer kubecamp.", "Use that version, or restore the backup from before the upgrade.";
    HubBackup = "KC-HUB-BACKUP", Preflight, "No copy of the hub's database could be made, so its tables are as they were.", "Install postgresql-client of the server's version or newer, or make a copy yourself and add --backed-up.";
    HubClock = "KC-HUB-CLOCK", Preflight, "The hub's clock differs too much from its database's.", "Switch on time synchronisation on both computers: timedatectl set-ntp true.";
    ServerClock = "KC-SERVER-CLOCK", Preflight, "A server's clock differs too much from the hub's.", "Switch on time synchronisation there: timedatectl set-ntp true.";
    HostTooSmall = "KC-HOST-TOO-SMALL", Preflight, "A host is smaller than its layout asks.", "Use larger hosts, a smaller layout, or --allow-undersized.";
    HostDisk = "KC-HOST-DISK", Preflight, "A host lacks disk space.", "Free some space under /var/lib.";
    HostOs = "KC-HOST-OS", Preflight, "A host's operating system is not supported.", "Use Debian 12 or 13, Ubuntu 22.04 or 24.04, or a RHEL-like 8, 9 or 10; 8 is too old for proxy mode nftables.";
    HostArch = "KC-HOST-ARCH", Preflight, "The CPU of a host, or of this computer, is not supported.", "Use one with an amd64 or arm64 CPU.";
    HostKernel = "KC-HOST-KERNEL", Preflight, "A host's kernel lacks something that the lab needs.", "Use the distribution's stock kernel.";
    HostTools = "KC-HOST-TOOLS", Preflight, "A host lacks a program that the lab needs.", "Install the package named with the host's package manager.";
    HostInit = "KC-HOST-INIT", Preflight, "A host does not run systemd.", "Use a machine that boots with systemd.";
    HostClock = "KC-HOST-CLOCK", Preflight, "The clocks of hosts, or theirs and this computer's, differ too much.", "Switch on time synchronisation: timedatectl set-ntp true.";
    HostPort = "KC-HOST-PORT", Preflight, "A port that Kubernetes needs is taken.", "Stop the program named, or use another host.";
    HostSwap = "KC-HOST-SWAP", Preflight, "Swap is on.", "Switch it off: swapoff -a; remove its line from /etc/fstab too, or it is back after a restart.";
    HostTwin = "KC-HOST-TWIN", Preflight, "Two hosts share a machine-id, MAC address, host name or address.", "They are clones: give each its own (rm /etc/machine-id; systemd-machine-id-setup).";
    HostLeftovers = "KC-HOST-LEFTOVERS", Preflight, "A host has left-overs of another cluster.", "Run kubecamp reset for it, or kubeadm reset and remove what is named.";
    HostNames = "KC-HOST-NAMES", Preflight, "A host cannot resolve names.", "Check /etc/resolv.conf on it.";
    HostApart = "KC-HOST-APART", Preflight, "Two hosts cannot reach each other.", "Open between all hosts TCP 6443 and 10250 and the pod network's traffic (security group, firewall).";
    HostNetwork = "KC-HOST-NETWORK", Preflight, "A host's networks overlap the lab's, or do not lead to the other hosts as its CNI needs, or carry virtual servers that kube-proxy would remove.", "Choose other CIDRs in the profile.";
    HostCgroup = "KC-HOST-CGROUP", Preflight, "A host lacks a cgroup controller.", "Boot it with the controller enabled.";
    HostTaken = "KC-HOST-TAKEN", Preflight, "A host belongs to another kubecamp lab.", "Reset that lab first.";
    ClusterLost = "KC-CLUSTER-LOST", Preflight, "The lab's cluster is there, and the certificate authority that it was made with is not.", "Run kubecamp reset, then kubecamp up.";
    ClusterMoved = "KC-CLUSTER-MOVED", Preflight, "The control plane of the lab's cluster has another address than the one that it was made with.", "Give the host its old address back, or run kubecamp reset, then kubecamp up.";
    HostScan = "KC-HOST-SCAN", Step, "A tool that shows a host's state failed, so the host cannot be recorded.", "Run the tool named on the host and mend it, then run the same command again.";
    MachineCapacity = "KC-MACHINE-CAPACITY", Preflight, "This computer cannot hold the layout's machines.", "Choose a smaller --layout, or use cloud hosts.";
    MachineKind = "KC-MACHINE-KIND", Preflight, "Virtual machines were asked for and cannot be made on this computer.", "Use --machines container, or mend what is named: KVM, the module vhost_vsock, Incus with its qemu driver.";
    LocalTools = "KC-LOCAL-TOOLS", Preflight, "This computer lacks programs or packages that the command needs.", "Install what is named.";
    LocalRoot = "KC-LOCAL-ROOT", Preflight, "Something on this computer needs root: packages, the node image or the private machine engine.", "Run with sudo, or install and start Incus for your user.";
    // Connect
    HostUnreachable = "KC-HOST-UNREACHABLE", Connect, "A host does not answer.", "Check address, port, power and firewall: ssh -v to it.";
    HostName = "KC-HOST-NAME", Connect, "A host's name cannot be resolved.", "Check the spelling, or use its address.";
    HostAuth = "KC-HOST-AUTH", Connect, "A host refused every key offered.", "Name the right key with --identity, or add it to the agent.";
    KeyLocked = "KC-KEY-LOCKED", Connect, "A private key is encrypted and no pass phrase was given.", "Load it with ssh-add, or run on a terminal.";
    KeyFile = "KC-KEY-FILE", Connect, "A private key file cannot be read.", "Check the path given with --identity.";
    HostKeyUnknown = "KC-HOST-KEY-UNKNOWN", Connect, "A host's key is not known yet.", "Compare the fingerprint, then run with --accept-new-host-keys.";
    HostKeyChanged = "KC-HOST-KEY-CHANGED", Connect, "A host's key is not the one recorded: someone may be in between.", "If the host was really reinstalled, remove its line from the known_hosts file named.";
    HostKeyRevoked = "KC-HOST-KEY-REVOKED", Connect, "A host's key is marked as revoked.", "Do not use this host before its owner gave it a new key.";
    Sudo = "KC-SUDO", Connect, "The user cannot become root on a host.", "Use root, a sudo user, or --ask-sudo-password; in scripts --sudo-password-file.";
    SudoPassword = "KC-SUDO-PASSWORD", Connect, "sudo refused the password.", "Try again with the right password for that user.";
    LinkLost = "KC-LINK-LOST", Connect, "The connection to a host broke.", "Run the same command again; it continues where it was.";
    HubAway = "KC-HUB-AWAY", Connect, "The hub does not answer.", "Check its address (--hub or KUBECAMP_HUB), that it runs, and its certificate.";
    HubDatabase = "KC-HUB-DATABASE", Connect, "The hub's database does not answer or refused a request.", "Check that it runs, its address, its disk space and the hub's log.";
    HubFull = "KC-HUB-FULL", Connect, "The disk or the database of the hub is full: nothing was changed.", "Free space where the hub's database is, or tell whoever runs it; then the same works again, without a restart.";
    // Bundle
    BundleBroken = "KC-BUNDLE-BROKEN", Bundle, "The bundle is damaged or was altered.", "Fetch or build it anew.";
    BundlePath = "KC-BUNDLE-PATH", Bundle, "The bundle has a member that would be written outside its folder.", "Do not use this file; it was made to do harm.";
    BundleFormat = "KC-BUNDLE-FORMAT", Bundle, "The file is not a bundle that this version reads.", "Build it with this version of kubecamp.";
    BundleArch = "KC-BUNDLE-ARCH", Bundle, "The bundle is for another CPU.", "Build one with --arch.";
    BundleVersion = "KC-BUNDLE-VERSION", Bundle, "The bundle holds another Kubernetes version than the profile asks.", "Build one for the profile's version, or change the profile.";
    BundleBuild = "KC-BUNDLE-BUILD", Bundle, "A part of the bundle could not be built.", "Read the tool's output above; finished parts are kept.";
    BundleTools = "KC-BUNDLE-TOOLS", Bundle, "Building from Go modules needs tools that are missing.", "Install Go, a C compiler and mmdebstrap, or build from upstream.";
    BundleUnknown = "KC-BUNDLE-UNKNOWN", Bundle, "No recipe is known for this Kubernetes version.", "Choose a release of v1.34 to v1.37, as v1.36.3.";
    Download = "KC-DOWNLOAD", Bundle, "A download failed.", "Run the command again; it continues where it stopped. Slow link: set mirrors in config.yaml. A site out of reach: kubecamp bundle build --source modules.";
    DownloadDigest = "KC-DOWNLOAD-DIGEST", Bundle, "A download does not have the expected checksum.", "The mirror may be stale or hostile; try another.";
    // Machine
    EngineHangs = "KC-ENGINE-HANGS", Machine, "The private machine engine began to start, and did not come to an end.", "See the log named; what hangs there, as a disk that does not answer, must be mended first.";
    EngineStart = "KC-ENGINE-START", Machine, "The private machine engine did not start.", "See the log named; kubecamp machine engine stop clears what is half-started.";
    EngineCall = "KC-ENGINE-CALL", Machine, "Incus refused a request.", "See Incus's words above.";
    EngineImage = "KC-ENGINE-IMAGE", Machine, "The node image could not be built.", "See the tool's output above.";
    EnginePackages = "KC-ENGINE-PACKAGES", Machine, "The packages of the machine engine could not be installed.", "See the package manager's output above.";
    MachineStart = "KC-MACHINE-START", Machine, "A machine did not come up.", "kubecamp machine list shows its state.";
    // Step
    StepFailed = "KC-STEP-FAILED", Step, "A step on a host failed.", "Mend the cause and run the same command again; it continues where it was.";
    StepTimeout = "KC-STEP-TIMEOUT", Step, "A step on a host did not end within its limit.", "Look at the host, then run the same command again.";
    StepUnreached = "KC-STEP-UNREACHED", Step, "A step was not tried because one that it needs failed.", "Mend the other problem first.";
    UploadFailed = "KC-UPLOAD-FAILED", Step, "An upload did not arrive whole.", "Run the same command again.";
    UploadDisk = "KC-UPLOAD-DISK", Step, "A host's disk became full during an upload; the partial file was removed.", "Free space on the host and run the same command again.";
    // Verify
    VerifyFailed = "KC-VERIFY-FAILED", Verify, "The lab does not work as its profile says.", "kubecamp status and kubecamp kubectl -- get pods -A show its state. See first that the pod network's traffic passes between the hosts (security group, firewall); what kubecamp up cannot mend then comes back with kubecamp reset and then kubecamp up.";
    ResetResidue = "KC-RESET-RESIDUE", Verify, "A host is not as clean as it was before.", "Run kubecamp reset again; what stays is named above.";
    ResetUnproven = "KC-RESET-UNPROVEN", Verify, "A tool that shows a host's state failed, so nobody can tell whether the host is clean.", "Run the tool named on the host and mend it, then run kubecamp reset again.";
    HubDoctor = "KC-HUB-DOCTOR", Verify, "The hub's records contradict each other.", "Keep a copy of the database and report it with the lines above.";
    // The gate on a booked server
    GateConfig = "KC-GATE-CONFIG", Input, "The agent's configuration is wrong.", "Enrol the server again: kubecamp hub enroll.";
    GateKey = "KC-GATE-KEY", Input, "A key or certificate of the gate cannot be used.", "Use an OpenSSH public key: ssh-keygen -t ed25519.";
    GateHost = "KC-GATE-HOST", Preflight, "A server cannot be a gate.", "Use a server with OpenSSH 8.2 or newer.";
    GateLink = "KC-GATE-LINK", Connect, "The hub does not answer the agent, or refuses it.", "Check the hub's address and the agent's token; the plan at hand stays in force.";
    GateState = "KC-GATE-STATE", Step, "The agent cannot read or write its own state.", "Check the disk of the server.";
    GateAccount = "KC-GATE-ACCOUNT", Step, "An account on a server cannot be that of a student.", "Look at it with id NAME, or give the person another account name.";
    GateProgram = "KC-GATE-PROGRAM", Step, "A program of a server failed or did not answer, so the agent cannot say what it asked for.", "See the line of that program; the agent asks again by itself. Where accounts come from a directory, see that the server reaches it.";
    GateHandOver = "KC-GATE-HAND-OVER", Step, "A lab could not be saved, reset or brought up on its server.", "Look at the server, mend the cause, then clear the quarantine.";
    GatePlan = "KC-GATE-PLAN", Verify, "A plan was refused: it is not the hub's, not this server's, too old, too long or unsound.", "Check the hub's plan key in the agent's configuration; enrol the server again if the hub was set up anew.";
    GateNotEmpty = "KC-GATE-NOT-EMPTY", Verify, "Something of a slot's holder still runs on the server after the slot's end.", "Look at the processes named; restart the server if they cannot be ended.";
    // Busy, booking, cancelled, internal
    LabBusy = "KC-LAB-BUSY", Busy, "Another run works on this lab.", "Wait for it, or stop the process named.";
    HostBusy = "KC-HOST-BUSY", Busy, "Another kubecamp works on this host.", "Wait for it to end.";
    HubTooMany = "KC-HUB-TOO-MANY", Busy, "Too many requests came from one client.", "Wait a few seconds and try again.";
    HubBusy = "KC-HUB-BUSY", Busy, "The hub or its database was too busy.", "Run the same command again.";
    HubRunning = "KC-HUB-RUNNING", Busy, "Another hub works on this database.", "Stop the process named, or give this hub another --database; several hubs can share a PostgreSQL.";
    BookConflict = "KC-BOOK-CONFLICT", Conflict, "The slot is taken.", "Take one of the free slots named, or wait for it: kubecamp book wait START --for LENGTH.";
    BookOwn = "KC-BOOK-OWN", Conflict, "The person holds another slot at this time.", "Cancel the other one first.";
    BookStale = "KC-BOOK-STALE", Conflict, "It was changed by somebody else in between.", "Look at it again, then repeat the command.";
    BookState = "KC-BOOK-STATE", Conflict, "The booking is not in a state that allows it.", "kubecamp book ls shows where it stands.";
    BookWaiting = "KC-BOOK-WAITING", Conflict, "Somebody waits for the time that an extension would take.", "Let them have it, and join the waitlist.";
    BookQuota = "KC-BOOK-QUOTA", Quota, "The person's hours of the week are used up.", "Book a week later, or cancel another slot.";
    BookGroupQuota = "KC-BOOK-GROUP-QUOTA", Quota, "The group's hours of the week are used up.", "Book a week later, or cancel another slot of the group.";
    BookAhead = "KC-BOOK-AHEAD", Quota, "The person has as many bookings ahead as allowed.", "Use or cancel one of them first.";
    BookClosed = "KC-BOOK-CLOSED", Closed, "The server is not open then.", "kubecamp book free shows what can be had.";
    BookMaintenance = "KC-BOOK-MAINTENANCE", Closed, "The server is in maintenance then.", "kubecamp book free shows what can be had.";
    BookNotice = "KC-BOOK-NOTICE", Closed, "It is too late to book the slot.", "Choose a later one.";
    BookHorizon = "KC-BOOK-HORIZON", Closed, "The slot is too far ahead.", "Choose an earlier one, or wait until it can be booked.";
    ServerAway = "KC-SERVER-AWAY", Closed, "The server is out of use or in quarantine.", "Choose another server.";
    ServerSilent = "KC-SERVER-SILENT", Closed, "The server's agent is not heard, so that a slot which begins soon would open to nobody.", "Choose another server or a later start; an admin sees more with kubecamp hub doctor.";
    HubDenied = "KC-HUB-DENIED", Denied, "The caller may not do this.", "Ask a teacher or an admin.";
    HubSignIn = "KC-HUB-SIGN-IN", Denied, "The token, link or signature is unknown, used, expired or revoked.", "Sign in again: kubecamp login.";
    HubForged = "KC-HUB-FORGED", Denied, "A form did not come from the hub's own page, or the page is old.", "Load the page again and repeat it.";
    HubLocked = "KC-HUB-LOCKED", Denied, "Signing in failed too often.", "Wait 15 minutes, or ask a teacher or an admin for a link.";
    BookEarly = "KC-BOOK-EARLY", Slot, "The slot has not begun.", "Run the same command again then; book ssh --config prepares plain ssh before.";
    BookOver = "KC-BOOK-OVER", Slot, "The slot is over.", "kubecamp book ls shows your others, kubecamp book free what can be had.";
    Declined = "KC-DECLINED", Cancelled, "The question was not answered with yes.", "Run the same command again and answer y to go on.";
    Cancelled = "KC-CANCELLED", Cancelled, "The run was stopped by Ctrl-C or SIGTERM.", "Run the same command again; it continues where it was.";
    Internal = "KC-INTERNAL", Internal, "A defect of kubecamp.", "Please report it with the run log.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text).ok_or_else(|| format!("unknown code {text}"))
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            let text = code.as_str();
            assert!(text.starts_with("KC-") && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'), "{text}");
            assert!(code.meaning().ends_with('.') && code.hint().ends_with('.'), "{text}");
            assert_eq!(text.parse(), Ok(*code));
        }
    }

    #[test]
    fn no_hint_of_all_commands_names_a_flag_of_some() {
        assert!(Code::ALL.iter().all(|code| !code.hint().contains("--yes")), "few commands ask anything");
    }
}
