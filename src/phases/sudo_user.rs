use async_trait::async_trait;

use crate::{
    core::{Blob, PhaseId, Problem, Secret, shell::quote},
    engine::{Change, Check, Phase, Step, Upload, View},
};

/// Makes a user who logs in with the lab's key and becomes root by sudo: machines as clouds hand them out.
pub struct SudoUser {
    /// The user's name.
    pub user: String,
    /// What sudo asks for; without it sudo asks for nothing.
    pub password: Option<Secret>,
}

/// Where the password passes through, in memory.
const PASSWORD: &str = "/run/kubecamp-password";

#[async_trait]
impl Phase for SudoUser {
    fn id(&self) -> PhaseId {
        PhaseId::new("sudo-user")
    }

    fn title(&self) -> &'static str {
        "make a user with sudo"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let user = quote(&self.user);
        let rule = match self.password {
            Some(_) => format!("{} ALL=(ALL:ALL) ALL", self.user),
            None => format!("{} ALL=(ALL:ALL) NOPASSWD: ALL", self.user),
        };
        let make = format!(
            "id -u {user} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {user} || exit 1\n\
             home=$(getent passwd {user} | cut -d: -f6); group=$(id -gn {user})\n\
             install -d -m 700 -o {user} -g \"$group\" \"$home/.ssh\" &&\n\
             install -m 600 -o {user} -g \"$group\" /root/.ssh/authorized_keys \"$home/.ssh/authorized_keys\" &&\n\
             echo {rule} >/etc/sudoers.d/kubecamp-user.part && chmod 440 /etc/sudoers.d/kubecamp-user.part &&\n\
             visudo -cqf /etc/sudoers.d/kubecamp-user.part && mv /etc/sudoers.d/kubecamp-user.part /etc/sudoers.d/kubecamp-user",
            rule = quote(&rule)
        );
        let mut steps = vec![Step::script("user", format!("make the user {}", self.user), Check::Never, make)];
        if let Some(password) = &self.password {
            let line = format!("{}:{}\n", self.user, password.expose());
            let file = Upload {
                what: "password".into(),
                blob: Blob::from_bytes(line.into_bytes()),
                to: PASSWORD.into(),
                mode: 0o600,
                have: String::new(),
                then: "chpasswd <\"$KC_FILE\"; status=$?; rm -f \"$KC_FILE\"; exit $status".into(),
            };
            let change = Change::Upload { files: vec![file], then: String::new() };
            steps.push(Step::new("password", "set the password that sudo asks for", Check::Never, change));
        }
        Ok(steps)
    }
}
