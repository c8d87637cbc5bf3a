//! Where pulls run and how they leave the network: addresses that are shared, defaults that change.

use imagecache::{
    cluster::profiles::Source,
    model::{cloud::Cloud, profile::Data, settings::Settings},
};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::{CACHES, JOBS, UID, World, job, spec};

const OTHER: &str = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f61";

impl World {
    fn annotate(&mut self, name: &str, annotations: &Value) {
        let path = format!("{CACHES}/{name}");
        let mut object = self.server.get(&path).unwrap();
        object["metadata"]["annotations"] = annotations.clone();
        self.server.put(&path, object);
        self.see_cache(name);
    }

    async fn passes(&mut self, name: &str) {
        for _ in 0..2 {
            self.pass(name).await.unwrap();
            self.see_cache(name);
        }
    }

    fn profile(&self, subnet: &str) {
        let data = Data::from([("vSwitchIds".to_owned(), subnet.to_owned())]);
        self.context.cluster.profiles.learn(Source::EciProfile, Some(data));
    }
}

#[tokio::test]
async fn pulls_that_share_an_eip_wait_for_each_other_and_say_for_whom() {
    let mut world = World::new();
    for (name, uid) in [("first", UID), ("second", OTHER)] {
        world.apply(name, uid, &spec());
        world.annotate(name, &json!({"k8s.aliyun.com/eip-instance-id": "eip-bp1q5n8cq4p7f6dzu"}));
    }
    world.passes("first").await;
    // The watch has not shown the Job yet, and the address is taken.
    world.passes("second").await;
    let status = world.status("second");
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Pending"), &json!("Queued")));
    let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("eip-bp1q5n8cq4p7f6dzu") && message.contains("first"), "{message}");

    // Also when the Job is over, as long as its pod may hold the address.
    let name = job(1);
    let path = format!("{JOBS}/{name}");
    let mut over = world.server.get(&path).unwrap();
    over["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
    world.server.put(&path, over);
    world.see_job(&name);
    world.passes("second").await;
    assert_eq!(world.status("second")["reason"], "Queued");

    let gone = world.server.with(|state| state.objects.remove(&path)).unwrap();
    world.jobs.apply_watcher_event(&Event::Delete(serde_json::from_value(gone).unwrap()));
    // The first would be next again: it is older, and its run is open.
    let first = world.server.get(&format!("{CACHES}/first")).unwrap();
    world.caches.apply_watcher_event(&Event::Delete(serde_json::from_value(first).unwrap()));
    world.passes("second").await;
    assert_eq!(world.status("second")["reason"], "Preparing");
}

#[tokio::test]
async fn an_edit_of_the_clusters_defaults_is_for_the_next_pull() {
    const KEY: &str = "/spec/template/metadata/annotations/k8s.aliyun.com~1eci-vswitch";
    let mut world = World::with(Settings { cloud: Cloud::Eci, ..Settings::default() });
    world.profile("vsw-1");
    world.apply("shop", UID, &spec());
    world.passes("shop").await;
    let first = format!("{JOBS}/{}", job(1));
    assert_eq!(world.server.get(&first).unwrap().pointer(KEY), Some(&json!("vsw-1")));
    world.see_job(&job(1));

    world.profile("vsw-2");
    world.passes("shop").await;
    assert!(world.server.get(&first).is_some(), "what is at work goes on");
    assert_eq!(world.status("shop")["ledger"]["run"], 1);

    let mut object = world.server.get(&format!("{CACHES}/shop")).unwrap();
    object["spec"]["images"] = json!(["reg.example.com/team/app:2"]);
    object["metadata"]["generation"] = json!(2);
    world.server.put(&format!("{CACHES}/shop"), object);
    world.see_cache("shop");
    world.passes("shop").await;
    let gone = json!({"metadata": {"name": job(1), "namespace": "system"}});
    world.jobs.apply_watcher_event(&Event::Delete(serde_json::from_value(gone).unwrap()));
    world.passes("shop").await;
    let second = world.server.get(&format!("{JOBS}/{}", job(2))).unwrap();
    assert_eq!(second.pointer(KEY), Some(&json!("vsw-2")));
}
