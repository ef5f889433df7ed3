//! Settings: what `--set` changes, where paths start, and how what is wrong is named.

use super::*;
use dataflow_runtime::RuntimeSettings;

const TEXT: &str = r#"
    default_profile = "a"
    [params]
    emit = "eager"
    [profiles.a]
    workers = 2
    data = "data"
    vars = { input = "", own = "in", geo = "${input}/geo.csv" }
    [profiles.a.runtime]
    tick_min_ms = 7
    [profiles.a.sources.s]
    path = "${input}/x"
    [profiles.a.sources.t]
    path = "t.ndjson"
    other = "${own}/o"
    absolute = "/o"
    outside = "${env:HOME}/o"
    secret = "file:s"
"#;

fn profile(set: &[&str]) -> Result<Profile> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    Profile::parse(TEXT, "jobs/t.toml", PathBuf::from("jobs"), None, &set)
}

#[test]
fn variables_parameters_and_paths_are_set() {
    let p = profile(&["input=/in", "emit=final", "runtime.tick_max_ms=9", "workers=3"]).unwrap();
    assert_eq!(p.table(&["sources", "s"]).unwrap()["path"].as_str(), Some("/in/x"));
    assert_eq!(p.var("geo").unwrap().as_deref(), Some("/in/geo.csv"));
    assert_eq!(p.table(&["params"]).unwrap()["emit"].as_str(), Some("final"));
    let runtime: RuntimeSettings = p.section(&["runtime"]).unwrap();
    assert_eq!((runtime.tick_min_ms, runtime.tick_max_ms), (7, 9));
    assert_eq!(p.value::<usize>("workers").unwrap(), Some(3));
}

#[test]
fn a_key_with_dots_stands_in_quotes_and_tables_are_made_on_the_way() {
    let p = profile(&[r#"sources.t.client."security.protocol"=SSL"#, "sources.t.registry.url=http://r"]).unwrap();
    let source = p.table(&["sources", "t"]).unwrap();
    assert_eq!(source["client"]["security.protocol"].as_str(), Some("SSL"));
    assert_eq!(source["registry"]["url"].as_str(), Some("http://r"));
}

#[test]
fn a_relative_path_starts_at_the_file_or_where_the_program_runs() {
    let p = profile(&["input=in", "sources.s.other=o"]).unwrap();
    let check = |at: &[&str], text: &str, expected: &str| assert_eq!(p.path(at, text), Path::new(expected), "{at:?}");
    check(&["data"], "data", "jobs/data");
    check(&["sources", "t", "path"], "t.ndjson", "jobs/t.ndjson");
    check(&["sources", "t", "other"], "in/o", "jobs/in/o");
    check(&["sources", "t", "absolute"], "/o", "/o");
    check(&["sources", "t", "outside"], "home/o", "home/o");
    check(&["sources", "t", "secret"], "s", "jobs/s");
    check(&["sources", "s", "path"], "in/x", "in/x");
    check(&["sources", "s", "other"], "o", "o");
    assert_eq!(p.path_var("geo").unwrap().unwrap(), Path::new("in/geo.csv"));
    assert_eq!(p.path_var("own").unwrap().unwrap(), Path::new("jobs/in"));
    let whole = profile(&["sources.t={path='p'}"]).unwrap();
    assert_eq!(whole.path(&["sources", "t", "path"], "p"), Path::new("p"));
}

#[test]
fn what_is_wrong_is_named_with_what_is_right() {
    let check = |set: &[&str], read: fn(&Profile) -> Result<()>, parts: &[&str]| {
        let said = profile(set).and_then(|p| read(&p)).expect_err(parts[0]).to_string();
        for part in parts {
            assert!(said.contains(part), "{said:?} lacks {part:?}");
        }
    };
    let runtime = |p: &Profile| p.section::<RuntimeSettings>(&["runtime"]).map(drop);
    check(&["emitt=final"], |_| Ok(()), &["did you mean 'emit'?"]);
    check(&["vars.goe=x"], |_| Ok(()), &["'goe'", "did you mean 'geo'?"]);
    check(&["runtme.tick_min_ms=1"], |_| Ok(()), &["did you mean 'runtime'?"]);
    check(&["runtime.tick_mn_ms=1"], runtime, &["did you mean 'tick_min_ms'?"]);
    check(&["runtime.tick_min_ms=soon"], runtime, &["'runtime'", "tick_min_ms", "soon"]);
    check(&["runtime.tick_min_ms.x=1"], |_| Ok(()), &["'tick_min_ms' is a value"]);
    check(&["sources.s=3"], |_| Ok(()), &["'sources.s'", "integer", "a table"]);
    check(&["workers=two"], |p| p.value::<usize>("workers").map(drop), &["'workers'", "two"]);
    check(&[], |p| p.table(&["sources", "s"]).map(drop), &["add --set input="]);
    check(&["nothing"], |_| Ok(()), &["there is no '='"]);
    check(&["a b=1"], |_| Ok(()), &["'a b' is no key", "in quotes"]);
}

#[test]
fn an_error_of_syntax_shows_no_line_of_the_file() {
    let said = Profile::parse("a = 1\npassword = hush\n", "t.toml", PathBuf::new(), None, &[]).unwrap_err().to_string();
    assert!(said.contains("'t.toml', line 2") && !said.contains("hush"), "{said}");
}

#[test]
fn sections_of_another_shape_are_refused() {
    let check = |right: &str, wrong: &str, parts: &[&str]| {
        assert!(TEXT.contains(right));
        let text = TEXT.replacen(right, wrong, 1);
        let said = Profile::parse(&text, "t.toml", PathBuf::new(), None, &[]).expect_err(wrong).to_string();
        for part in parts {
            assert!(said.contains(part), "{said:?} lacks {part:?}");
        }
    };
    check("\"a\"", "3", &["'default_profile'", "integer", "a text"]);
    check("own = \"in\"", "own = 3", &["'vars.own'", "integer", "a text"]);
    check("data = \"data\"", "runtme = 7", &["'runtme'", "did you mean 'runtime'?"]);
    check("data = \"data\"", "state = 7", &["'state'", "integer", "a table"]);
    check("[params]", "export = true\n    [params]", &["'export'"]);
    check("[params]", "[params", &["'t.toml', line 3:"]);
}

#[test]
fn a_size_is_bytes_or_a_text() {
    let limit = |text: &str| {
        let runtime =
            profile(&[&format!("runtime.memory_limit={text}")]).unwrap().section::<RuntimeSettings>(&["runtime"]);
        runtime.map(|runtime| runtime.memory_limit.unwrap().as_u64())
    };
    for (text, bytes) in [("1048576", 1 << 20), ("4GiB", 4 << 30), ("\"512 MiB\"", 512 << 20), ("2GB", 2_000_000_000)] {
        assert_eq!(limit(text).unwrap(), bytes, "{text}");
    }
    let said = limit("much").unwrap_err().to_string();
    assert!(said.contains("runtime") && said.contains("memory_limit"), "{said}");
}
