use super::*;

#[test]
fn json_and_toml_say_the_same() {
    let json = r#"{"name":"ci","tag":"1","contents":"/nix/store/x","user":{"name":"me","uid":5},"nixConf":{"sandbox":true,"cores":[1,2]},"config":{"Cmd":["a"]}}"#;
    let toml = "name = 'ci:1'\ncontents = ['/nix/store/x']\nuser = { name = 'me', uid = 5 }\n[nixConf]\nsandbox = true\ncores = '1 2'\n[config]\nCmd = ['a']\n";
    assert_eq!(ImageSpec::from_json(json).expect("valid"), ImageSpec::from_toml(toml).expect("valid"));
}

#[test]
fn dates_of_toml_are_dates() {
    let spec = ImageSpec::from_toml("created = 1979-05-27T07:32:00Z").expect("valid");
    assert_eq!(spec.created, "1979-05-27T07:32:00Z");
}

#[test]
fn unset_the_layers_are_half_of_dockers() {
    let spec = ImageSpec::from_json("{}").expect("valid");
    assert_eq!((spec.max_layers, crate::build::layers::most(&spec, 0, 2)), (None, 62));
}

#[test]
fn keys_of_one_strategy_choose_it() {
    let strategy = |spec: &str| ImageSpec::from_json(spec).expect(spec).strategy;
    assert_eq!(strategy("{}"), Strategy::Stable);
    assert_eq!(strategy(r#"{"pathsPerLayer":[10,1]}"#), Strategy::PathsPerLayer);
    assert_eq!(strategy(r#"{"popularity":{"glibc":2.5}}"#), Strategy::Popularity);
    assert_eq!(strategy(r#"{"popularity":{"a":0},"pathsPerLayer":[3]}"#), Strategy::PathsPerLayer);
    assert_eq!(strategy(r#"{"layers":[["a","b*"],["/nix/store/x"]],"strategy":"size"}"#), Strategy::Size);
}

#[test]
fn what_can_be_built_is_said_shortly_or_at_length() {
    let spec = |text: &str| ImageSpec::from_json(text).expect(text);
    let deps = |of: &[&str]| BuildDeps { of: of.iter().map(ToString::to_string).collect(), ..BuildDeps::default() };
    assert_eq!(spec(r#"{"buildDepsOf":"a"}"#).build_deps, deps(&["a"]));
    assert_eq!(spec(r#"{"buildDepsOf":["a","b"]}"#).build_deps, deps(&["a", "b"]));
    let long = BuildDeps { drvs: false, depth: Depth::All, ..deps(&["a"]) };
    assert_eq!(spec(r#"{"buildDepsOf":{"of":["a"],"drvs":false,"depth":"all"}}"#).build_deps, long);
    assert_eq!(spec(r#"{"buildDepsOf":{"of":"a"}}"#).build_deps, deps(&["a"]));
    let tree = |path: &str, exclude: &[&str]| SourceTree {
        path: path.to_owned(),
        exclude: exclude.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(spec(r#"{"nixpkgs":"x"}"#).trees, [("nixpkgs".to_owned(), tree("x", &[]))].into());
    let trees = [("a".to_owned(), tree("x", &[])), ("b".to_owned(), tree("y", &["doc"]))].into();
    assert_eq!(spec(r#"{"nixpkgs":{"a":"x","b":{"path":"y","exclude":["doc"]}}}"#).trees, trees);
    assert_eq!(
        spec(r#"{"nixpkgs":{"path":"x","exclude":["doc"]}}"#).trees,
        [("nixpkgs".to_owned(), tree("x", &["doc"]))].into()
    );
    for (wrong, message) in [
        (r#"{"buildDepsOf":[["a"],false,"all"]}"#, "buildDepsOf must be a path"),
        (r#"{"nixpkgs":{"a":["x",["y"]]}}"#, "nixpkgs must be the path of a source tree"),
        (r#"{"nixpkgs":["x"]}"#, "nixpkgs must be the path of a source tree"),
        (r#"{"nixpkgs":"x","includeNixDB":false}"#, "needs a Nix database"),
        (r#"{"buildDepsOf":{"of":"a","depht":"all"}}"#, "buildDepsOf must be a path"),
        (r#"{"buildDepsOf":{"of":"a","depth":"some"}}"#, "buildDepsOf must be a path"),
        (r#"{"nixpkgs":{"a":{"path":"y","exclud":[]}}}"#, "nixpkgs must be the path of a source tree"),
        (r#"{"nixpkgs":{"a:b":"x"}}"#, "no name for a source tree"),
    ] {
        let error = ImageSpec::from_json(wrong).expect_err(wrong).to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_told_of_in_the_words_of_the_spec() {
    for (key, wrong, kind) in [
        ("contents", "{}", "a path, or a list of paths"),
        ("contents", "[1]", "a path, or a list of paths"),
        ("name", "1", "a text"),
        ("fromImage", "[]", "a text"),
        ("uid", "-1", "a whole number from 0 to 4294967295"),
        ("gid", "4294967296", "a whole number from 0 to 4294967295"),
        ("maxLayers", "\"5\"", "a whole number, 0 or more"),
        ("includeNixDB", "1", "true or false"),
        ("nixConf", "[]", "an object"),
        ("layers", "[\"a\"]", "a list of lists of patterns"),
        ("popularity", "{\"a\":\"b\"}", "an object of patterns with a number each"),
        ("user", "\"me\"", "an object"),
        ("user.name", "1", "a text"),
        ("user.uid", "1.5", "a whole number from 0"),
        ("config", "[]", "an object"),
        ("config.Env", "{\"A\":\"b\"}", "a list of texts"),
        ("config.ExposedPorts", "[80]", "an object whose values are {}"),
        ("config.Volumes", "{\"/x\":1}", "an object whose values are {}"),
        ("config.Labels", "{\"a\":1}", "an object whose values are texts"),
        ("config.StopTimeout", "-1", "a whole number"),
        ("config.Healthcheck", "[]", "an object"),
        ("config.Healthcheck.Test", "\"x\"", "a list of texts"),
        ("config.Healthcheck.Retries", "\"x\"", "a whole number"),
    ] {
        let spec = key.rsplit('.').fold(wrong.to_owned(), |value, key| format!("{{\"{key}\":{value}}}"));
        let error = ImageSpec::from_json(&spec).expect_err(&spec).to_string();
        assert!(error.starts_with(&format!("the spec's {key} must be {kind}")), "{spec}: {error}");
    }
}

#[test]
fn every_message_names_its_cause() {
    for (spec, message) in [
        ("{", "no JSON"),
        ("[]", "the spec must be an object"),
        (r#"{"content":[]}"#, r#"unknown key "content" in the spec; did you mean "contents"?"#),
        (r#"{"zzz":1}"#, r#"unknown key "zzz" in the spec"#),
        (r#"{"config":{"cmd":[]}}"#, r#"unknown key "cmd" in the spec's config; did you mean "Cmd"?"#),
        (r#"{"config":{"Entry":[]}}"#, r#"unknown key "Entry" in the spec's config; did you mean "Entrypoint"?"#),
        (r#"{"config":{"Tty":"yes"}}"#, "the spec's config.Tty must be true or false"),
        (r#"{"config":{"Hostname":5}}"#, "the spec's config.Hostname must be a text"),
        (r#"{"config":{"CpuShares":"1"}}"#, "the spec's config.CpuShares must be a whole number"),
        (r#"{"config":{"Typo":null}}"#, r#"unknown key "Typo""#),
        (r#"{"user":{"id":1}}"#, r#"did you mean "gid"?"#),
        (r#"{"annotations":{}}"#, r#""annotations" is not built yet"#),
        (r#"{"perms":[{"path":"[","mode":"644"}]}"#, "perms"),
        (r#"{"perms":[{"path":"x","mode":"9"}]}"#, r#""9" is no mode"#),
        (r#"{"contents":[],"copyToRoot":[]}"#, "copyToRoot"),
        (r#"{"includeStorePaths":false,"includeNixDB":true}"#, "includeNixDB"),
        (r#"{"fakeRootCommands":"x"}"#, r#""fakeRootCommands" runs commands"#),
        (r#"{"config":{"Cmd":"x"}}"#, "the spec's config.Cmd must be a list of texts"),
        (r#"{"name":"A B"}"#, "not an image name that Docker takes"),
        (r#"{"tag":"x"}"#, "a tag needs a name"),
        (r#"{"created":"now"}"#, "depend on the clock"),
        (r#"{"created":"2020-1-1"}"#, "RFC 3339"),
        (r#"{"created":"2020-13-01T00:00:00Z"}"#, "RFC 3339"),
        (r#"{"created":"2023-02-29T00:00:00Z"}"#, "RFC 3339"),
        (r#"{"created":"2016-12-31T23:59:60Z"}"#, "RFC 3339"),
        (r#"{"mtime":"now"}"#, "mtime"),
        (r#"{"mtime":"1969-12-31T23:59:59Z"}"#, "from 1970 until 2242"),
        (r#"{"mtime":"2242-03-16T12:56:32Z"}"#, "from 1970 until 2242"),
        (r#"{"mtime":"2021-02-29T00:00:00Z"}"#, "RFC 3339"),
        (r#"{"architecture":"x86_64"}"#, "none of Go's names: 386, amd64"),
        (r#"{"user":{"home":"/tmp"}}"#, "a folder of the system's"),
        (r#"{"maxLayers":1}"#, "too few"),
        (r#"{"maxLayers":2,"hook":true}"#, "needs 3 at the least"),
        (r#"{"strategy":"best"}"#, "no strategy"),
        (r#"{"strategy":"pathsPerLayer"}"#, "needs a list of numbers"),
        (r#"{"strategy":"size","pathsPerLayer":[1]}"#, "and no other"),
        (r#"{"pathsPerLayer":[0]}"#, "the spec's pathsPerLayer must be a list of whole numbers, 1 or more"),
        (r#"{"strategy":"stable","popularity":{"a":1}}"#, "hints are for"),
        (r#"{"popularity":{"a":-1}}"#, "the weight of \"a\""),
        (r#"{"layers":[["a["]]}"#, "is no pattern"),
        (r#"{"nixConf":{"a":{}}}"#, "nixConf"),
        (r#"{"nixConf":{"a":"b\nc"}}"#, "in one line"),
        (r#"{"user":{"home":"x"}}"#, "no absolute path"),
    ] {
        let error = ImageSpec::from_json(spec).expect_err(spec);
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains(message), "{spec}: {text}");
    }
}
