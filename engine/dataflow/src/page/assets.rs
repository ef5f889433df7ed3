//! The page's files: plain HTML, CSS and JavaScript modules, in the binary as they are written. The page loads nothing from anywhere else,
//! and its policy says so to the browser.

use super::Shown;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use std::sync::Arc;

/// Nothing but this server, no inline script, no frame of somebody else around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type, content.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("index.html")),
    ("/style.css", CSS, include_str!("style.css")),
    ("/main.js", SCRIPT, include_str!("main.js")),
    ("/dom.js", SCRIPT, include_str!("dom.js")),
    ("/numbers.js", SCRIPT, include_str!("numbers.js")),
    ("/graph.js", SCRIPT, include_str!("graph.js")),
    ("/panels.js", SCRIPT, include_str!("panels.js")),
    ("/charts.js", SCRIPT, include_str!("charts.js")),
    ("/alerts.js", SCRIPT, include_str!("alerts.js")),
    ("/tables.js", SCRIPT, include_str!("tables.js")),
];

/// Adds a route for each file.
pub(super) fn routes(mut router: Router<Arc<Shown>>) -> Router<Arc<Shown>> {
    for (path, kind, text) in FILES {
        let answer = [
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CACHE_CONTROL, "no-store"), // another build of the program may answer the next time
        ];
        router = router.route(path, get(move || async move { (answer, text) }));
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_name_is_served_and_nothing_from_outside() {
        for (path, _, text) in FILES {
            let outside = text.split(['"', '\'', '(']).filter(|s| s.starts_with("http:") || s.starts_with("https:"));
            let outside: Vec<&str> = outside.filter(|s| !s.starts_with("http://www.w3.org/")).collect();
            assert!(outside.is_empty(), "{path} names {outside:?}");
            for import in text.lines().filter(|l| l.starts_with("import ")) {
                let from = import.rsplit('"').nth(1).unwrap().trim_start_matches('.');
                assert!(FILES.iter().any(|(known, ..)| *known == from), "{path} imports {from}");
            }
        }
    }
}
