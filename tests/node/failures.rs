//! What can go wrong, one row each: the class, the phase, the conditions (by the kstatus helper), a message that
//! names the image and says what to do; and the object becomes Ready when the cause is gone.

use std::thread;

use serde_json::{Value, json};

use crate::{
    kit::kstatus::{Kstatus, Status},
    world::{
        image::{Blob, Image},
        image_cache, plain_cache, pull_secret,
        registry::{Kind, PASSWORD, Registry, USER, know},
        world,
    },
};

/// A failure that is seen, and what is done about it.
struct Case {
    name: &'static str,
    object: Value,
    /// What the message names: the image, unless it says something better.
    names: String,
    class: &'static str,
    /// Failed at once, or still retried soon.
    permanent: bool,
    /// Words of the message that help.
    says: &'static [&'static str],
    repair: Box<dyn FnOnce() + Send>,
}

impl Case {
    fn run(self) {
        let Self { name, object, names, class, permanent, says, repair } = self;
        world().apply(&object);
        let failed = world().wait_for(name, class, |status| status.is_current() && status.reason() == class);
        check(&failed, &names, permanent, says);
        repair();
        let ready = world().wait_ready(name);
        assert_eq!(ready.uid(), failed.uid(), "{name}: it is another object");
        assert!(
            ready.list("images").iter().all(|image| image["error"].is_null()),
            "{name}: {:?}",
            ready.object
        );
    }
}

fn check(status: &Status, names: &str, permanent: bool, says: &[&str]) {
    let expected = if permanent { ("Failed", Kstatus::Failed) } else { ("Creating", Kstatus::InProgress) };
    assert_eq!((status.phase(), status.kstatus), expected, "{:?}", status.object["status"]);
    let message = status.message();
    assert!(message.contains(names), "{names:?} in {message:?}");
    for words in says {
        assert!(message.contains(words), "{words:?} in {message:?}");
    }
}

/// All of them at once: each waits most of its time.
fn run_all(cases: Vec<Case>) {
    thread::scope(|scope| {
        for case in cases {
            let name = case.name.to_owned();
            thread::Builder::new().name(name).spawn_scoped(scope, || case.run()).unwrap();
        }
    });
}

fn small(repository: &str) -> Image {
    let image = Image::of(vec![Blob::named(repository, 100_000)]);
    world().storage.put(repository, "1", &image);
    image
}

fn annotate(name: &str, key: &str, value: &str) {
    world().cluster.run(&["annotate", "imagecache", name, &format!("{key}={value}")]);
}

fn edit(name: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    world().cluster.run(&["patch", "imagecache", name, "--type=merge", "-p", &patch]);
}

fn login(name: &str, server: &str, password: &str) {
    world().apply(&pull_secret("default", name, server, USER, password));
}

#[test]
fn what_the_user_wrote_is_wrong() {
    let _shared = world().shared();
    let registry = Registry::start("wrote.test");
    small("wrote/app");
    let good = registry.image("wrote/app", "1");

    let bad = format!("{}/Wrote/App:1", registry.name);
    let repaired = good.clone();
    let invalid = Case {
        name: "invalid-reference",
        object: plain_cache("invalid-reference", std::slice::from_ref(&bad)),
        names: bad,
        class: "InvalidSpec",
        permanent: true,
        says: &["spec.images[0]", "lower-case"],
        repair: Box::new(move || edit("invalid-reference", &json!({"images": [repaired]}))),
    };

    let mut object = plain_cache("secret-missing", std::slice::from_ref(&good));
    object["spec"]["imagePullSecrets"] = json!(["default:comes-later"]);
    let server = registry.name.clone();
    let missing = Case {
        name: "secret-missing",
        object,
        names: "default:comes-later".into(),
        class: "SecretMissing",
        permanent: true,
        says: &["does not exist: create it"],
        repair: Box::new(move || login("comes-later", &server, PASSWORD)),
    };

    let huge = Image::claiming(vec![Blob::named("huge", 1000)], |_| 21 << 30);
    world().storage.put("wrote/huge", "1", &huge);
    let image = registry.image("wrote/huge", "1");
    let too_small = Case {
        name: "too-small",
        object: plain_cache("too-small", std::slice::from_ref(&image)),
        names: image,
        class: "SizeExceeded",
        permanent: true,
        says: &["22548578", "21474836480", "22 GiB", "spec.imageCacheSize"],
        repair: Box::new(move || {
            // The layer does not have what its manifest claims: with room enough that is what is wrong.
            edit("too-small", &json!({"imageCacheSize": 40}));
            world().wait_for("too-small", "another try with more room", |status| {
                status.is_current() && ["BadContent", "NoSpace"].contains(&status.reason())
            });
            edit("too-small", &json!({"images": [good]}));
        }),
    };
    run_all(vec![invalid, missing, too_small]);
}

#[test]
fn the_registry_is_reached_in_the_wrong_way() {
    let _shared = world().shared();
    small("reached/app");
    let plain = Registry::start("plain.test");
    let signed = Registry::start_as("signed.test", Kind { self_signed: true, ..Kind::default() });
    let refused = Registry::start("refused.test");
    refused.stop();
    let lost = Registry::start("known-later.test");
    let unknown = lost.name.replace("known-later", "nobody-knows");

    let case = |name: &'static str,
                registry: &Registry,
                class,
                permanent,
                says,
                repair: Box<dyn FnOnce() + Send>| {
        let image = registry.image("reached/app", "1");
        Case {
            name,
            object: image_cache(name, std::slice::from_ref(&image)),
            names: image,
            class,
            permanent,
            says,
            repair,
        }
    };
    let (plain_name, signed_name) = (plain.name.clone(), signed.name.clone());
    let mut cases = vec![
        case(
            "plain-http",
            &plain,
            "PlainHttp",
            true,
            &["plain HTTP", "k8s.aliyun.com/plain-http-registry"],
            Box::new(move || annotate("plain-http", "k8s.aliyun.com/plain-http-registry", &plain_name)),
        ),
        case(
            "self-signed",
            &signed,
            "Certificate",
            true,
            &["x509", "k8s.aliyun.com/insecure-registry"],
            Box::new(move || annotate("self-signed", "k8s.aliyun.com/insecure-registry", &signed_name)),
        ),
    ];
    let image = refused.image("reached/app", "1");
    cases.push(Case {
        name: "refused",
        object: plain_cache("refused", std::slice::from_ref(&image)),
        names: image,
        class: "Network",
        permanent: false,
        says: &["connection refused", "private"],
        repair: Box::new(move || {
            refused.start_again();
            world().wait_ready("refused");
        }),
    });
    let image = format!("{unknown}/reached/app:1");
    cases.push(Case {
        name: "no-such-host",
        object: plain_cache("no-such-host", std::slice::from_ref(&image)),
        names: image,
        class: "Dns",
        permanent: false,
        says: &["no such host", "check the name"],
        repair: Box::new(move || {
            know("nobody-knows.test");
            world().wait_ready("no-such-host");
            drop(lost);
        }),
    });
    run_all(cases);
}

/// Causes that are repaired where nobody watches are found by the slow retry, within minutes. So this takes no lock:
/// a controller that is started again does no harm here.
#[test]
fn the_registry_does_not_give_the_image() {
    let image = Image::of(vec![Blob::named("given", 100_000)]);
    world().storage.put("given/app", "1", &image);
    let open = Registry::start("given.test");
    let closed = Registry::start_as("closed.test", Kind { password: true, ..Kind::default() });

    let absent = open.image("given/app", "comes-later");
    let no_tag = Case {
        name: "no-such-tag",
        object: plain_cache("no-such-tag", std::slice::from_ref(&absent)),
        names: absent,
        class: "NotFound",
        permanent: true,
        says: &["not found", "404", "check the repository and the tag"],
        repair: Box::new(move || world().storage.put("given/app", "comes-later", &image)),
    };

    let wanted = closed.image("given/app", "1");
    let server = closed.name.clone();
    let denied = Case {
        name: "denied",
        object: plain_cache("denied", std::slice::from_ref(&wanted)),
        names: wanted.clone(),
        class: "Auth",
        permanent: true,
        says: &["no pull secret is for it", "spec.imagePullSecrets"],
        repair: Box::new({
            let server = server.clone();
            move || {
                login("denied-login", &server, PASSWORD);
                edit("denied", &json!({"imagePullSecrets": ["default:denied-login"]}));
            }
        }),
    };

    login("wrong-login", &server, "not-the-password-4d1c");
    let mut object = plain_cache("wrong-password", std::slice::from_ref(&wanted));
    object["spec"]["imagePullSecrets"] = json!(["default:wrong-login"]);
    let wrong = Case {
        name: "wrong-password",
        object,
        names: wanted,
        class: "Auth",
        permanent: true,
        says: &["pull access denied", "401", "spec.imagePullSecrets"],
        repair: Box::new(move || login("wrong-login", &server, PASSWORD)),
    };
    run_all(vec![no_tag, denied, wrong]);
}
