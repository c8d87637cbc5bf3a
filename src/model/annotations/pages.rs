//! Where the clouds say what a key means, with the date their page shows.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub title: &'static str,
    /// Empty where the page shows none.
    pub date: &'static str,
    pub address: &'static str,
}

const fn page(title: &'static str, date: &'static str, address: &'static str) -> Page {
    Page { title, date, address }
}

pub const ECI_CACHE: Page = page(
    "ECI, ImageCache annotations",
    "2024-10-29",
    "https://www.alibabacloud.com/help/doc-detail/311475.htm",
);
/// Architecture and system came with this revision.
pub const ECI_CACHE_2026: Page = page(
    "ECI, ImageCache annotations",
    "2026-06-10",
    "https://help.aliyun.com/en/eci/user-guide/annotations-that-can-be-added-to-create-an-image-cache",
);
pub const ECI_POD: Page =
    page("ECI, Pod annotations", "2025-04-24", "https://help.aliyun.com/en/eci/user-guide/pod-annotations-1");
pub const ECI_HOSTS: Page = page(
    "ECI, Configure hosts for a pod",
    "",
    "https://help.aliyun.com/zh/eci/user-guide/configure-hosts-for-a-pod",
);
pub const ECI_DNS: Page = page(
    "ECI, Configure custom DNS for pods",
    "",
    "https://help.aliyun.com/zh/eci/user-guide/configure-custom-dns-for-eci-pods",
);
pub const ECI_MATCH: Page = page(
    "ECI, Use ImageCache to accelerate the creation of pods",
    "2026-04-01",
    "https://help.aliyun.com/zh/eci/user-guide/use-imagecache-to-accelerate-the-creation-of-pods",
);
pub const ECI_KNATIVE: Page = page(
    "ACK, Knative on ECI (the legacy spelling)",
    "",
    "https://help.aliyun.com/document_detail/365643.html",
);
pub const ECI_2019: Page = page(
    "ECI, ImageCache CRD, revision of 2019",
    "2019",
    "https://help.aliyun.com/zh/eci/user-guide/manage-image-caches-1",
);
pub const ECI_CRD: Page = page(
    "ACK, Use the image cache CRD",
    "",
    "https://www.alibabacloud.com/help/en/container-service-for-kubernetes/latest/use-the-image-cache-crd-to-accelerate-the-pod-creation-process",
);
pub const KCI: Page = page(
    "KCI, 使用自建仓库 (use a self-built registry)",
    "2024-04-23",
    "https://docs.ksyun.com/documents/42886",
);
pub const KCI_PROVIDER: Page = page(
    "Kingsoft Cloud's Terraform provider, settings of KCE virtual nodes",
    "",
    "https://github.com/kingsoftcloud/terraform-provider-ksyun",
);
pub const TKE_FAQ: Page = page(
    "TKE Serverless, Image Repository FAQs",
    "2024-12-12",
    "https://www.tencentcloud.com/document/product/457/44484",
);
pub const TKE_POD: Page = page(
    "TKE, annotations of pods on super nodes",
    "",
    "https://cloud.tencent.com/document/product/457/44173",
);
pub const TKE_CACHE: Page =
    page("TKE, image cache", "2025-03-04", "https://cloud.tencent.com/document/product/457/65908");
