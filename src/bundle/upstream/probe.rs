use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;

use super::{
    Job, Mirrors,
    download::{Answer, Downloads},
    registry::Registry,
    releases::{Release, flannel_cni_image, releases},
};
use crate::bundle::{
    catalogue::{Entry, catalogue},
    manifest::Origins,
};

/// How long all sites, asked at once, have for their answers: a registry with tokens is asked four times for one.
const ANSWER: Duration = Duration::from_secs(8);
/// How often one is asked within that time: a token that could not be had is no answer of a registry.
const TIMES: usize = 2;

/// Sites that a bundle cannot be fetched from now.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    /// Those that did not answer.
    pub silent: Vec<String>,
    /// Those that answered, each with what it does not have.
    pub lacking: Vec<String>,
    /// Whether these are all of them, as for who is offline.
    pub is_total: bool,
}

impl Silence {
    /// Whether each site has what a bundle needs.
    pub fn is_none(&self) -> bool {
        self.silent.is_empty() && self.lacking.is_empty()
    }

    /// Which sites these are, in words.
    pub fn told(&self) -> String {
        let mut all = self.lacking.clone();
        if !self.silent.is_empty() {
            all.insert(0, format!("no answer within seconds from {}", self.silent.join(", ")));
        }
        all.join("; ")
    }
}

/// Which sites, or the mirrors that are asked instead of them, do not have these versions or do not answer in time.
pub async fn silent(job: &Job) -> Silence {
    let samples = samples(job);
    // Without a pause: nothing here is waited for but answers.
    let answers = match Downloads::new(job.folder.clone(), Duration::ZERO) {
        Ok(downloads) => {
            let probe = Probe { job, downloads: &downloads, registry: Registry::new(&job.mirrors, &downloads) };
            let asked: Vec<_> = samples.iter().map(|sample| probe.answer(sample)).collect();
            join_all(asked).await
        }
        Err(_) => vec![Answer::Silent; samples.len()],
    };
    let mut silence = Silence { is_total: !answers.contains(&Answer::Has), ..Silence::default() };
    for (sample, answer) in samples.iter().zip(answers) {
        let site = sample.told_as(&job.mirrors);
        match answer {
            Answer::Has => {}
            Answer::HasNot => silence.lacking.push(format!("{site} answers, but has no {}", sample.rest())),
            Answer::Silent => silence.silent.push(site),
        }
    }
    silence
}

/// Something small that a site has when it has the rest.
enum Sample {
    /// The checksum of a release's file.
    File(Release),
    /// The manifest of an image.
    Image(String),
}

impl Sample {
    /// Its address without `https://`.
    fn address(&self) -> &str {
        match self {
            Self::File(release) => release.sums.trim_start_matches("https://"),
            Self::Image(image) => image,
        }
    }

    /// What follows the site in its address.
    fn rest(&self) -> &str {
        self.address().split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The site that has it, or the part of that site that has a mirror of its own.
    fn asked_at<'a>(&'a self, mirrors: &'a Mirrors) -> &'a str {
        let mirrored = match self {
            Self::File(release) => mirrors.mirrored(&release.url),
            Self::Image(image) => mirrors.mirrored(image),
        };
        match mirrored {
            Some(beginning) => beginning.trim_start_matches("https://"),
            None => host(self.address()),
        }
    }

    /// That site, and the host that is asked instead of it: no more of a mirror's address, which may hold a password.
    fn told_as(&self, mirrors: &Mirrors) -> String {
        let (own, asked) = match self {
            Self::File(release) => (&release.sums, mirrors.url(&release.sums)),
            Self::Image(image) => (image, mirrors.image(image)),
        };
        let site = self.asked_at(mirrors);
        if *own == asked { site.to_owned() } else { format!("{site} (its mirror {})", host(&asked)) }
    }
}

/// The host in a URL or an image's name, with its port.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let whole = rest.split('/').next().unwrap_or(rest);
    whole.rsplit('@').next().unwrap_or(whole)
}

/// One sample of each site that a bundle needs, and of each part of one that has a mirror of its own.
fn samples(job: &Job) -> Vec<Sample> {
    let entries = catalogue(&job.versions, Origins::Upstream);
    let images = entries.iter().filter_map(Entry::image).map(|image| Sample::Image(image.to_owned()));
    let files = releases(&job.versions, job.arch).into_iter().map(Sample::File);
    let mut samples: Vec<_> = files.chain(images).chain([Sample::Image(flannel_cni_image(&job.versions))]).collect();
    let mut sites = BTreeSet::new();
    samples.retain(|sample| sites.insert(sample.asked_at(&job.mirrors).to_owned()));
    samples
}

struct Probe<'a> {
    job: &'a Job,
    downloads: &'a Downloads,
    registry: Registry<'a>,
}

impl Probe<'_> {
    /// The last answer that came in time, or the first good one.
    async fn answer(&self, sample: &Sample) -> Answer {
        let mut last = Answer::Silent;
        let asked = async {
            for _ in 0..TIMES {
                last = self.ask(sample).await;
                if last == Answer::Has {
                    break;
                }
            }
        };
        // Too late is told by what came before.
        let _ = tokio::time::timeout(ANSWER, asked).await;
        last
    }

    async fn ask(&self, sample: &Sample) -> Answer {
        match sample {
            Sample::File(release) => match self.downloads.ask(&self.job.mirrors.url(&release.sums)).await {
                Ok(text) if release.digest_in(&text).is_some() => Answer::Has,
                Ok(_) => Answer::HasNot,
                Err(answer) => answer,
            },
            Sample::Image(image) => self.registry.ask(image).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_mirrors_address_only_the_host_is_told() {
        for (address, told) in [
            ("https://me:pa55word@m.example:8443/k8s/x", "m.example:8443"),
            ("m.example/k8s/pause:3.10", "m.example"),
            ("127.0.0.1:5000/pause@sha256:0", "127.0.0.1:5000"),
        ] {
            assert_eq!(host(address), told);
        }
    }

    #[test]
    fn silence_and_what_is_not_there_are_told_apart() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let both = Silence { silent: text(&["a", "b"]), lacking: text(&["c answers, but has no x"]), is_total: false };
        assert_eq!(both.told(), "no answer within seconds from a, b; c answers, but has no x");
        assert!(!both.is_none() && Silence::default().is_none());
    }
}
