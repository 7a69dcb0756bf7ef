//! The logins of one version, endpoint by endpoint: one user name, and at SES a password for each region (pure).

use crate::credential::Login;

/// The logins of one version at the endpoints of a relay, by their numbers: the default one is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logins {
    default: Login,
    /// `None`: the version has no password for that endpoint, as a ready-made one serves one region.
    further: Vec<Option<Login>>,
    /// The endpoints that have taken theirs. `None`: that is not asked.
    proved: Option<Vec<usize>>,
}

impl Logins {
    /// `further`: those of the other endpoints, in their order.
    #[must_use]
    pub fn new(default: Login, further: Vec<Option<Login>>) -> Self {
        Self { default, further, proved: None }
    }

    /// Nothing may be planned with a login that no endpoint has taken yet: these have.
    #[must_use]
    pub fn proved_at(mut self, endpoints: Vec<usize>) -> Self {
        self.proved = Some(endpoints);
        self
    }

    /// The login of the default endpoint.
    #[must_use]
    pub fn default_login(&self) -> &Login {
        &self.default
    }

    /// All of them have the same.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.default.username
    }

    /// The login at an endpoint, where there is one.
    #[must_use]
    pub fn at(&self, endpoint: usize) -> Option<&Login> {
        match endpoint {
            0 => Some(&self.default),
            further => self.further.get(further - 1)?.as_ref(),
        }
    }

    /// Is there an endpoint that the version has no password for?
    #[must_use]
    pub fn is_for_one_region(&self) -> bool {
        self.further.iter().any(Option::is_none)
    }

    /// Has this endpoint taken its login, as far as that is asked?
    #[must_use]
    pub fn is_proved_at(&self, endpoint: usize) -> bool {
        self.proved.as_ref().is_none_or(|proved| proved.contains(&endpoint))
    }

    /// Every login, with the number of its endpoint.
    pub fn each(&self) -> impl Iterator<Item = (usize, &Login)> {
        let further = self.further.iter().enumerate().filter_map(|(at, login)| Some((at + 1, login.as_ref()?)));
        std::iter::once((0, &self.default)).chain(further)
    }

    /// The same with every login checked.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn checked<E>(self, check: impl Fn(Login) -> Result<Login, E>) -> Result<Self, E> {
        let further = self.further.into_iter().map(|login| login.map(&check).transpose());
        Ok(Self { default: check(self.default)?, further: further.collect::<Result<_, E>>()?, proved: self.proved })
    }
}

/// A login of a version that the source names to a host without state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLogin {
    /// The login.
    pub login: Login,
    /// The number of the endpoint that it is for.
    pub endpoint: usize,
    /// Made from the access key for that endpoint's region, or taken there, or to be tried there before anything is written. What an
    /// earlier version held ready-made may be of another region by mistake.
    pub is_certain: bool,
}

impl From<Login> for Logins {
    /// Of a relay with one endpoint.
    fn from(login: Login) -> Self {
        Self::new(login, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_own() {
        let login = |pair| Login::from_pair(pair).unwrap();
        let logins = Logins::new(login("AKIA:us"), vec![None, Some(login("AKIA:eu"))]);
        let each: Vec<(usize, &str)> = logins.each().map(|(at, login)| (at, login.password.expose())).collect();
        assert_eq!(each, [(0, "us"), (2, "eu")]);
        assert!(logins.at(1).is_none() && logins.at(3).is_none() && logins.is_for_one_region());
        assert!(logins.is_proved_at(2) && !logins.proved_at(vec![0]).is_proved_at(2));
        assert!(!Logins::from(login("AKIA:us")).is_for_one_region());
    }
}
