//! Refreshes: asked for, by interval, of proofs, failing and succeeding. The cache is ready all the time.

use std::time::Duration;

use imagecache::{
    api::ImageCache,
    model::{class::Class, facts::SecretState, plan::Again, request::Resolve},
};

use crate::{
    DAY, ready,
    world::{World, at, cache, tracked},
};

const NGINX: &str = "docker.io/library/nginx:1";
const HOUR: Duration = Duration::from_hours(1);

fn every(text: &str) -> impl FnOnce(&mut ImageCache) {
    let text = text.to_owned();
    move |object| object.spec.refresh_interval = Some(text)
}

/// Ready, available and quiet, whatever the refresh does.
fn undisturbed(world: &World) {
    let status = world.status();
    assert_eq!(
        (world.phase().as_str(), status.progress.as_deref(), status.reason),
        ("Ready", Some("100%"), None)
    );
    assert!(world.condition("Ready").0 && world.condition("Available").0);
    assert_eq!(world.kstatus(), "Current");
}

/// A refresh is opened and its Job ends.
fn refreshes(world: &mut World) {
    for _ in 0..2 {
        world.reconcile();
        undisturbed(world);
    }
    assert_eq!(world.jobs.len(), 1, "a Job asks");
    world.pulls(50);
    world.reconcile();
    undisturbed(world);
    world.job_ends(false);
    world.reconcile();
    undisturbed(world);
}

fn reasons(world: &World) -> Vec<String> {
    world.status().events.iter().map(|event| event.reason.clone()).collect()
}

#[test]
fn a_new_value_asks_the_registries_anew_and_pulls_what_changed() {
    let mut world = ready();
    world.edit(|object| object.spec.retention_days = Some(30));
    world.reconcile();
    let (expires, old) = (world.status().expire_date_time, world.status().images);
    world.pass(DAY);
    world.push(NGINX);
    world.ask_anew("1");
    refreshes(&mut world);
    let status = world.status();
    let (nginx, redis) = (&status.images[0], &status.images[1]);
    assert_eq!(nginx.digest, Some(world.digest(&NGINX.parse().unwrap()).to_string()));
    assert_eq!(nginx.previous[0].digest, *old[0].digest.as_ref().unwrap());
    assert_eq!(at(nginx.previous[0].until.clone().into()), world.now);
    assert_eq!((&redis.digest, redis.previous.len()), (&old[1].digest, 0));
    assert_eq!(at(redis.resolved.clone()), world.now, "an unchanged one was asked about too");
    assert_eq!(status.expire_date_time, expires, "a refresh does not move expiry");
    let told: Vec<_> = status.events.iter().filter(|event| event.reason == "DigestChanged").collect();
    let (from, to) = (old[0].digest.as_ref().unwrap(), nginx.digest.as_ref().unwrap());
    assert_eq!(told.len(), 1);
    assert!(
        told[0].message.contains(NGINX) && told[0].message.contains(&format!("{from} -> {to}")),
        "{}",
        told[0].message
    );
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, plan.status), (vec![], status), "the same value asks once");
    world.ask_anew("2");
    refreshes(&mut world);
    assert_eq!(world.status().ledger.unwrap().handled_refresh.as_deref(), Some("2"));
}

#[test]
fn the_last_few_digests_are_kept() {
    let mut world = ready();
    for n in 0..9 {
        world.push(NGINX);
        world.ask_anew(&n.to_string());
        refreshes(&mut world);
    }
    let image = &world.status().images[0];
    assert_eq!(image.previous.len(), 5);
    assert!(image.previous.is_sorted_by(|a, b| a.until.0 >= b.until.0), "the newest first");
}

#[test]
fn an_interval_asks_in_time_and_again() {
    let mut world = ready();
    world.edit(every("12h"));
    world.reconcile();
    for n in 2..5 {
        let Again::After(wait) = world.reconcile() else { panic!("nobody comes back") };
        assert!(wait > HOUR * 8 && wait <= HOUR * 12, "{wait:?}");
        world.pass(wait.saturating_sub(Duration::from_secs(1)));
        assert_eq!(world.plan().unwrap().actions, vec![]);
        world.pass(Duration::from_secs(1));
        refreshes(&mut world);
        assert_eq!(world.run(), n);
    }
    let before = reasons(&world).len();
    world.pass(HOUR * 12);
    refreshes(&mut world);
    assert_eq!(reasons(&world).len(), before, "a refresh that finds nothing new is no event");
}

#[test]
fn while_a_registry_is_down_the_content_stays_and_a_condition_says_since_when_and_why() {
    for class in [Class::Network, Class::NotFound, Class::Auth] {
        let mut world = ready();
        let images = world.status().images;
        assert!(world.condition("Fresh").0);
        world.edit(every("1h"));
        world.pass(HOUR);
        world.push(NGINX);
        world.upstream = Some(class);
        refreshes(&mut world);
        let since = world.now;
        let mut tries = 0;
        for _ in 0..12 {
            let (fresh, reason, message) = world.condition("Fresh");
            assert_eq!((fresh, reason.as_str()), (false, class.as_str()));
            assert!(
                message.contains("the last good content stays") && message.contains("GET https://r/v2/"),
                "{message}"
            );
            let status = world.status();
            let condition = status.conditions.iter().find(|c| c.type_ == "Fresh").unwrap();
            assert_eq!(condition.last_transition_time.0, since);
            assert_eq!(status.images[0].digest, images[0].digest);
            assert!(status.images[0].error.is_some());
            let Again::After(wait) = world.reconcile() else { panic!("it is tried again") };
            world.pass(wait);
            if world.plan().unwrap().status != world.status() {
                refreshes(&mut world);
                tries += 1;
            }
        }
        assert!(tries > 3, "{class}: {tries} tries");
        let failed = reasons(&world).iter().filter(|reason| *reason == "RefreshFailed").count();
        assert_eq!(failed, 1, "one fact, one event");
        world.settle();
        assert!(world.condition("Fresh").0 && world.status().images[0].error.is_none());
        assert_eq!(world.status().images[0].digest, Some(world.digest(&NGINX.parse().unwrap()).to_string()));
        assert!(reasons(&world).contains(&"Refreshed".to_owned()));
    }
}

#[test]
fn a_missing_secret_or_a_full_queue_keeps_a_refresh_waiting_and_nobody_else() {
    let mut world = World::new(cache(&["r.example.com/app:1"]));
    world.edit(|object| object.spec.image_pull_secrets = vec!["default:key".into()]);
    world.settle();
    world.secret = SecretState::Missing;
    world.ask_anew("1");
    world.reconcile();
    undisturbed(&world);
    let (fresh, reason, message) = world.condition("Fresh");
    assert!(!fresh && reason == "SecretMissing" && message.contains("default:key"), "{message}");
    assert!(matches!(world.reconcile(), Again::After(wait) if wait <= Duration::from_mins(5)));
    world.secret = SecretState::Found { uid: "s".into(), resource_version: "10".into() };
    refreshes(&mut world);
    assert!(world.condition("Fresh").0);

    world.busy = 4;
    world.ask_anew("2");
    for _ in 0..3 {
        world.reconcile();
        undisturbed(&world);
    }
    assert!(world.jobs.is_empty());
}

#[test]
fn digests_are_never_asked_for_again() {
    let pinned = format!("nginx@sha256:{}", "a".repeat(64));
    let mut world = World::new(cache(&[&pinned]));
    world.edit(every("5m"));
    world.settle();
    assert!(world.status().notices.iter().any(|notice| notice.contains("nothing to refresh")));
    assert_eq!(world.condition("Fresh").1, "Pinned");
    world.ask_anew("1");
    world.reconcile();
    assert_eq!(world.status().ledger.unwrap().handled_refresh.as_deref(), Some("1"));
    world.pass(DAY * 300);
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, world.run(), plan.again), (vec![], 1, Again::OnChange));
}

#[test]
fn a_proof_that_an_image_is_public_is_renewed_before_it_runs_out() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.public = true;
    world.settle();
    let digest = world.status().images[0].digest.clone();
    world.push(NGINX);
    let mut age = Duration::ZERO;
    let mut renewed = 0;
    while renewed < 3 {
        let Again::After(wait) = world.reconcile() else { panic!("nobody comes back") };
        age += wait;
        assert!(age < DAY * 6, "{age:?}");
        world.pass(wait);
        refreshes(&mut world);
        (age, renewed) = (Duration::ZERO, renewed + 1);
    }
    assert_eq!(
        world.status().images[0].digest,
        digest,
        "the tag keeps what it means: nobody asked for a refresh"
    );
    world.pass(DAY * 6);
    world.reconcile();
    world.reconcile();
    assert!(matches!(world.jobs[0].request.resolve, Resolve::Proofs(4)));
    world.public = false;
    world.job_ends(false);
    world.reconcile();
    assert_eq!(world.status().ledger.unwrap().root.unwrap().proved, None);
    world.pass(DAY * 100);
    assert_eq!(world.plan().unwrap().again, Again::OnChange, "what is private needs no proof");
}

#[test]
fn an_expired_cache_that_was_kept_is_revived_by_a_refresh_and_counts_anew() {
    let mut world = ready();
    world.edit(tracked);
    world.edit(|object| object.spec.retention_days = Some(1));
    world.ask_anew("1");
    world.settle();
    world.pass(DAY);
    world.reconcile();
    assert_eq!(world.phase(), "Expired");
    world.pass(DAY);
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, plan.status), (vec![], world.status()));
    world.push(NGINX);
    world.ask_anew("2");
    world.reconcile();
    assert_ne!(world.phase(), "Expired");
    world.settle();
    assert_eq!(world.phase(), "Ready");
    assert_eq!(at(world.status().expire_date_time).duration_since(world.now).as_hours(), 24);
    assert_eq!(world.status().images[0].digest, Some(world.digest(&NGINX.parse().unwrap()).to_string()));
}

#[test]
fn an_edit_during_a_refresh_is_pulled_and_a_refresh_during_an_edit_is_answered_by_it() {
    let mut world = ready();
    world.ask_anew("1");
    world.reconcile();
    world.reconcile();
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run(), world.jobs.len()), ("Updating", 3, 0));
    world.settle();
    assert_eq!((world.phase().as_str(), world.run()), ("Ready", 3), "the edit asked the registries as well");
    assert_eq!(world.status().ledger.unwrap().handled_refresh.as_deref(), Some("1"));

    world.edit(|object| object.spec.images = vec!["nginx:3".into()]);
    world.reconcile();
    world.reconcile();
    world.ask_anew("2");
    world.job_ends(false);
    world.reconcile();
    assert_eq!(world.phase(), "Ready");
    world.settle();
    assert_eq!(world.run(), 5, "what was asked after the edit was opened is asked once more");
}

#[test]
fn content_that_is_lost_during_a_refresh_is_pulled_again() {
    let mut world = ready();
    world.ask_anew("1");
    world.reconcile();
    world.reconcile();
    world.broken.insert(1);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.condition("Ready").1.as_str()), ("Creating", "ContentLost"));
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn a_refresh_nobody_wants_any_more_is_dropped() {
    let mut world = ready();
    world.edit(every("1h"));
    world.pass(HOUR);
    world.upstream = Some(Class::NotFound);
    refreshes(&mut world);
    assert!(!world.condition("Fresh").0);
    world.edit(|object| object.spec.refresh_interval = None);
    world.reconcile();
    assert!(world.condition("Fresh").0);
    world.pass(DAY);
    assert_eq!(world.plan().unwrap().actions, vec![]);
}

#[test]
fn a_proof_that_cannot_be_had_any_more_keeps_no_tag_from_being_looked_up() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.public = true;
    world.edit(every("7d"));
    world.settle();
    let start = world.now;
    // The registry deleted what the tag meant before it was moved.
    world.upstream = Some(Class::NotFound);
    let mut proofs = 0;
    loop {
        let again = world.reconcile();
        match (world.jobs.first().map(|job| job.request.resolve), again) {
            (Some(Resolve::Since(_)), _) => break,
            (Some(Resolve::Proofs(_)), _) => {
                proofs += 1;
                world.job_ends(false);
            }
            (None, Again::After(wait)) => world.pass(wait),
            (None, Again::OnChange) => panic!("nobody comes back"),
        }
        undisturbed(&world);
    }
    let days = world.now.duration_since(start).as_hours() / 24;
    assert!(days <= 7, "{days}");
    if proofs > 0 {
        assert_eq!(world.condition("Fresh").1, "NotFound");
    }
    world.settle();
    assert!(world.condition("Fresh").0);
}
