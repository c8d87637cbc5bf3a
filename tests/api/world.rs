//! One API server for all tests, with the operator installed, and the users who appear in them.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::kit::cluster::{Cluster, eventually, root};

/// May read the secrets she was granted by name.
pub const ALICE: &str = "--as=alice";
/// May edit image caches and read no secret.
pub const BOB: &str = "--as=bob";

pub struct World {
    pub cluster: Cluster,
    /// What `kubectl apply -k config/` printed on standard error.
    pub install_warnings: String,
}

pub fn world() -> &'static World {
    // Lazy: a start that failed is not tried again by each test.
    static WORLD: LazyLock<World> = LazyLock::new(start);
    &WORLD
}

fn start() -> World {
    let cluster = Cluster::start("api", "IMAGECACHE_TEST_API");
    let install = cluster.kubectl(&["apply", "-k", root().join("config").to_str().unwrap()]);
    assert!(install.ok, "{install:?}");
    grant_everybody(&cluster);
    let world = World { cluster, install_warnings: install.err };
    world.wait_for_policy();
    world
}

/// Every signed-in user may make image caches; that alone gives nobody a secret.
fn grant_everybody(cluster: &Cluster) {
    let users = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "image-cache-user"},
         "rules": [{"apiGroups": ["eci.alibabacloud.com"], "resources": ["imagecaches", "imagecaches/status"], "verbs": ["*"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "image-cache-user"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "image-cache-user"},
         "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}]},
    ]});
    cluster.send(&users, &["apply"]).succeeded("the users' rights");
}

impl World {
    /// A new policy is in force a moment after it was made.
    fn wait_for_policy(&self) {
        let probe =
            image_cache("probe", &json!({"images": ["nginx"], "imagePullSecrets": ["default:probe"]}));
        eventually("the admission policy", || {
            let answer = self.cluster.send(&probe, &["create", "--dry-run=server", BOB]);
            answer.err.contains("may not get secret").then_some(())
        });
    }

    /// A namespace whose secrets `user` may read, by name only.
    pub fn grant(&self, namespace: &str, user: &str, secrets: &[&str]) {
        let grant = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "grant", "namespace": namespace},
             "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "grant", "namespace": namespace},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "grant"},
             "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]},
        ]});
        self.cluster.send(&grant, &["apply"]).succeeded("a grant");
        let name = format!("secret/{}", secrets[0]);
        eventually("the grant", || {
            let user = format!("--as={user}");
            self.cluster.kubectl(&["auth", "can-i", "get", &name, "-n", namespace, &user]).ok.then_some(())
        });
    }

    /// What the server says to an object that is not kept: Ok or the refusal.
    pub fn judge(&self, spec: &Value) -> Result<(), String> {
        let object = image_cache("judged", spec);
        let answer = self.cluster.send(&object, &["create", "--dry-run=server"]);
        if answer.ok { Ok(()) } else { Err(answer.err) }
    }
}

pub fn image_cache(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "eci.alibabacloud.com/v1", "kind": "ImageCache", "metadata": {"name": name}, "spec": spec})
}
