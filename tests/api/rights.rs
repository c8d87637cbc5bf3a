//! What the shipped rights let the controller see of the cluster's defaults.

use crate::world::world;

const CONTROLLER: &str = "--as=system:serviceaccount:imagecache-system:imagecache-controller";

#[test]
fn of_config_maps_the_controller_sees_four_by_name_and_no_other() {
    for (verb, name, namespace, may) in [
        ("list", "configmaps/eci-profile", "kube-system", true),
        ("watch", "configmaps/eks-config", "kube-system", true),
        ("watch", "configmaps/imagecache-placement", "imagecache-system", true),
        ("update", "configmaps/imagecache-gc", "imagecache-system", true),
        ("update", "configmaps/imagecache-placement", "imagecache-system", false),
        ("delete", "configmaps/imagecache-gc", "imagecache-system", false),
        ("list", "configmaps", "imagecache-system", false),
        ("create", "configmaps", "kube-system", false),
        ("list", "configmaps/kube-root-ca.crt", "kube-system", false),
        ("list", "configmaps", "kube-system", false),
        ("list", "configmaps/eci-profile", "default", false),
        ("patch", "configmaps/eci-profile", "kube-system", false),
    ] {
        let answer = world().cluster.kubectl(&["auth", "can-i", verb, name, "-n", namespace, CONTROLLER]);
        assert_eq!(answer.ok, may, "{verb} {name} in {namespace}: {answer:?}");
    }
}
