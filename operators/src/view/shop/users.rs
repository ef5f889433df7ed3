//! `silver.users`: users with their full name, and whether their e-mail address looks like one.
//!
//! ```sql
//! SELECT id, first_name, last_name, email, created_at, updated_at,
//!        coalesce(regexp_like(email, '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$'), false) AS valid_email,
//!        concat_ws(' ', first_name, last_name) AS full_name
//! FROM users
//! ```

use super::User;
use crate::table_row;
use crate::view::{Text, View};
use dataflow_core::Micros;

table_row! {
    /// A row of `silver.users`.
    pub struct SilverUser("silver.users", key: id) {
        /// Its number.
        pub id: i32,
        /// First name.
        pub first_name: Option<Text>,
        /// Last name.
        pub last_name: Option<Text>,
        /// E-mail address, as it came.
        pub email: Option<Text>,
        /// When the row was made.
        pub created_at: Option<Micros>,
        /// When it was last changed.
        pub updated_at: Option<Micros>,
        /// Whether the address has the form of one.
        pub valid_email: bool,
        /// The names that are not null, joined by one space.
        pub full_name: Text,
    }
}

pub(super) fn users<'s>(users: &View<'s, User>) -> View<'s, SilverUser> {
    users.map(SilverUser::from).named("silver.users")
}

impl From<User> for SilverUser {
    fn from(user: User) -> SilverUser {
        SilverUser {
            valid_email: user.email.as_deref().is_some_and(is_email),
            full_name: full_name(&user),
            id: user.id,
            first_name: user.first_name,
            last_name: user.last_name,
            email: user.email,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

pub(super) fn full_name(user: &User) -> Text {
    let names: Vec<&str> = [&user.first_name, &user.last_name].into_iter().flatten().map(|name| &**name).collect();
    names.join(" ").into()
}

/// Whether the whole text matches `[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}`.
pub(super) fn is_email(text: &str) -> bool {
    // Neither side may hold an `@`, and the last part no dot, so there is one way to split.
    let Some((name, (host, top))) = text.split_once('@').and_then(|(name, rest)| Some((name, rest.rsplit_once('.')?)))
    else {
        return false;
    };
    let all = |part: &str, more: &[u8]| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    all(name, b"._%+-") && all(host, b".-") && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for valid in ["a@b.co", "x_%-.y@a-b.c-d.info", "a@b..co", "1@2.museum", ".@-.zz", "a@..zz"] {
            assert!(is_email(valid), "{valid}");
        }
        for other in [
            "", "a", "@b.co", "a@b", "a@b.c", "a@.co", "a@b.c0", "a@b.co ", " a@b.co", "a@b@c.co", "ä@b.co", "a@b.cö",
            "a@b.co\n", "a b@c.co", "a@b_c.co", "a@b.co.",
        ] {
            assert!(!is_email(other), "{other}");
        }
    }
}
