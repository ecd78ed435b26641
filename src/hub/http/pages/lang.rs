/// A language that the pages speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lang {
    /// English.
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// All of them, in the order of the switch.
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// As the cookie and the catalogue's file name spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// As HTML's `lang` attribute spells it.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-Hans",
        }
    }

    /// What the language calls itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::Zh => "简体中文",
        }
    }

    /// The language of this code, when there is one.
    pub fn known(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lang| lang.as_str() == text)
    }

    /// The language of a request: the cookie's, else the best of `Accept-Language`, else English.
    ///
    /// Any Chinese counts, also traditional: it is nearer than English to whoever asks for it.
    pub fn choose(cookie: Option<&str>, accept: Option<&str>) -> Self {
        cookie.and_then(Self::known).or_else(|| accept.and_then(Self::best)).unwrap_or(Self::En)
    }

    fn best(accept: &str) -> Option<Self> {
        let mut found: Option<(f32, Self)> = None;
        for part in accept.split(',').take(20) {
            let (tag, rest) = part.split_once(';').unwrap_or((part, ""));
            let weight = rest.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let Some(lang) = Self::known(&primary) else { continue };
            // Of two of one weight the first stands.
            if weight > 0.0 && found.is_none_or(|(best, _)| weight > best) {
                found = Some((weight, lang));
            }
        }
        found.map(|(_, lang)| lang)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_stronger_than_the_header() {
        let rows = [
            (None, None, Lang::En),
            (None, Some("zh-CN,zh;q=0.9,en;q=0.8"), Lang::Zh),
            (None, Some("de, en;q=0.5, zh;q=0.7"), Lang::Zh),
            (None, Some("fr-FR, ja"), Lang::En),
            (None, Some("zh;q=0, en;q=0.1"), Lang::En),
            (None, Some("zh;q=x;;,,=-"), Lang::En),
            (Some("en"), Some("zh"), Lang::En),
            (Some("zh"), None, Lang::Zh),
            (Some("../etc"), Some("zh-Hant"), Lang::Zh),
        ];
        for (cookie, accept, want) in rows {
            assert_eq!(Lang::choose(cookie, accept), want, "{cookie:?} {accept:?}");
        }
    }
}
