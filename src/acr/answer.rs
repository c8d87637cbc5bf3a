//! What STS and ACR answer: temporary keys, logins, the domains of instances; or a refusal, as a class with the
//! vendor's phrase and what to do. Pure. The server's own sentence is not repeated: it may quote what was sent.
//! Sources: API references of STS 2015-04-01 and ACR 2018-12-01 and 2016-06-07, with their error codes.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;

use super::sign::Keys;
use crate::model::{class::Class, failure::Failure};

/// A temporary user and password of one registry.
#[derive(Clone)]
pub(super) struct Login {
    pub user: String,
    pub password: String,
    pub expires: Timestamp,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: Temporary,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Temporary {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
}

/// Of `AssumeRole` and `AssumeRoleWithOIDC`.
pub(super) fn keys(body: &[u8]) -> Result<Keys, Failure> {
    let Temporary { access_key_id, access_key_secret, security_token } = read::<Assumed>(body)?.credentials;
    Ok(Keys { id: access_key_id, secret: access_key_secret, token: Some(security_token) })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnterpriseToken {
    temp_username: String,
    authorization_token: String,
    expire_time: i64,
}

/// Of `GetAuthorizationToken`, Enterprise Edition.
pub(super) fn enterprise_login(body: &[u8]) -> Result<Login, Failure> {
    let token: EnterpriseToken = read(body)?;
    login(token.temp_username, token.authorization_token, token.expire_time)
}

#[derive(Deserialize)]
struct PersonalToken {
    data: PersonalData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersonalData {
    temp_user_name: String,
    authorization_token: String,
    expire_date: i64,
}

/// Of `GET /tokens`, Personal Edition.
pub(super) fn personal_login(body: &[u8]) -> Result<Login, Failure> {
    let data = read::<PersonalToken>(body)?.data;
    login(data.temp_user_name, data.authorization_token, data.expire_date)
}

fn login(user: String, password: String, milliseconds: i64) -> Result<Login, Failure> {
    let expires = Timestamp::from_millisecond(milliseconds).map_err(|_| unreadable())?;
    // Basic authentication ends the user at the first colon.
    if user.is_empty() || password.is_empty() || user.contains(':') {
        return Err(unreadable());
    }
    Ok(Login { user, password, expires })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoints {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    domains: Vec<EndpointDomain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointDomain {
    domain: String,
}

/// Of `ListInstanceEndpoint`: every domain of the instance, its own and those of the user.
pub(super) fn domains(body: &[u8]) -> Result<Vec<String>, Failure> {
    let endpoints = read::<Endpoints>(body)?.endpoints;
    let domains = endpoints.into_iter().flat_map(|endpoint| endpoint.domains);
    Ok(domains.map(|domain| domain.domain.to_ascii_lowercase()).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instances {
    #[serde(default)]
    instances: Vec<FoundInstance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FoundInstance {
    instance_id: String,
    instance_name: String,
}

/// Of `ListInstance`: the id of the instance that has exactly this name.
pub(super) fn instance_named(body: &[u8], name: &str) -> Result<Option<String>, Failure> {
    let all = read::<Instances>(body)?.instances;
    Ok(all.into_iter().find(|found| found.instance_name == name).map(|found| found.instance_id))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| unreadable())
}

fn unreadable() -> Failure {
    Failure::new(Class::ServerError, "the answer is not what the API's reference says")
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(alias = "Code")]
    code: Option<String>,
    #[serde(alias = "IsSuccess")]
    is_success: Option<bool>,
}

/// Says no, if it does: by the status, or by `IsSuccess` in an answer of 200.
pub(super) fn refusal(status: u16, body: &[u8]) -> Option<Failure> {
    let said: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let fine = (200..300).contains(&status) && said.is_success != Some(false);
    (!fine).then(|| failure(status, &said.code.filter(|code| is_code(code)).unwrap_or_default()))
}

fn is_code(code: &str) -> bool {
    (1..=80).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The first row whose beginning the code has. The phrases are the vendor's.
const CODES: &[(&str, Class, &str, &str)] = &[
    ("Throttling", Class::RateLimited, "Request was denied due to request throttling", "wait"),
    (
        "InvalidTimeStamp",
        Class::Auth,
        "Specified time stamp or date value is expired",
        "set the clock of the node that the operator runs on: more than 15 minutes are not accepted",
    ),
    (
        "SignatureNonceUsed",
        Class::ServerError,
        "Specified signature nonce was used already",
        "it is tried again",
    ),
    (
        "SignatureDoesNotMatch",
        Class::Auth,
        "Specified signature does not match our calculation",
        "check the operator's access key secret",
    ),
    (
        "IncompleteSignature",
        Class::Auth,
        "The request signature does not conform to standards",
        "check the operator's access key",
    ),
    (
        "InvalidAccessKeyId",
        Class::Auth,
        "Specified access key is not found or disabled",
        "check the operator's access key",
    ),
    (
        "InvalidSecurityToken",
        Class::Auth,
        "Specified SecurityToken is expired or malformed",
        "it is taken again with the next try",
    ),
    (
        "AuthenticationFail.OIDCToken.Expired",
        Class::Auth,
        "This JsonWebToken is expired",
        "check the node's clock and that the operator's RRSA token is a projected one",
    ),
    (
        "AuthenticationFail.OIDCToken",
        Class::Auth,
        "the OIDC token is not accepted",
        "check the OIDC provider of the cluster (RRSA), and that the token's audience is sts.aliyuncs.com",
    ),
    (
        "AuthenticationFail.NoPermission",
        Class::Auth,
        "There is no permission",
        "let the role's trust policy name the operator's service account: oidc:sub is \
         system:serviceaccount:NAMESPACE:imagecache-controller",
    ),
    (
        "EntityNotExist",
        Class::InvalidSpec,
        "The role not exists",
        "correct the ARN in the annotation, or create the role",
    ),
    (
        "INSTANCE_NOT_EXIST",
        Class::InvalidSpec,
        "the instance does not exist",
        "correct k8s.aliyun.com/acr-instance-ids, and the region before the id",
    ),
    ("InvalidParameter", Class::InvalidSpec, "a parameter is not valid", "correct the annotations"),
    (
        "NoPermission",
        Class::Auth,
        "You are not authorized to do this action. You should be authorized by RAM",
        "let the caller's policy allow it, and the role's trust policy name the caller",
    ),
    (
        "NoPrivilege",
        Class::Auth,
        "You are not authorized",
        "let the role's policy allow cr:GetAuthorizationToken, cr:List* and cr:PullRepository",
    ),
    (
        "Forbidden",
        Class::Auth,
        "User not authorized to operate on the specified resource",
        "let the role's policy allow it",
    ),
];

fn failure(status: u16, code: &str) -> Failure {
    let shown = if code.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status} {code}") };
    let row = CODES.iter().find(|(begins, ..)| code.starts_with(begins));
    if let Some((_, class, phrase, advice)) = row {
        return Failure::new(*class, format!("{phrase} ({shown}): {advice}"));
    }
    let (class, words) = match status {
        429 => (Class::RateLimited, "too many requests"),
        408 => (Class::Timeout, "the server timed out"),
        400..=499 => (Class::Auth, "the request was refused"),
        _ => (Class::ServerError, "a server error"),
    };
    Failure::new(class, format!("{words} ({shown})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_class_the_vendors_phrase_and_advice_and_none_of_the_servers_words() {
        for (status, body, class, says) in [
            (
                403,
                r#"{"Code":"NoPermission","Message":"s3cret"}"#,
                Class::Auth,
                "You should be authorized by RAM",
            ),
            (403, r#"{"Code":"NoPrivilege","IsSuccess":false}"#, Class::Auth, "cr:GetAuthorizationToken"),
            (
                404,
                r#"{"Code":"EntityNotExist.Role","Message":"s3cret"}"#,
                Class::InvalidSpec,
                "The role not exists",
            ),
            (400, r#"{"Code":"InvalidTimeStamp.Expired"}"#, Class::Auth, "clock"),
            (401, r#"{"Code":"AuthenticationFail.NoPermission"}"#, Class::Auth, "trust policy"),
            (
                401,
                r#"{"Code":"AuthenticationFail.OIDCToken.Expired"}"#,
                Class::Auth,
                "JsonWebToken is expired",
            ),
            (400, r#"{"Code":"Throttling.User"}"#, Class::RateLimited, "throttling"),
            (500, r#"{"Code":"SystemError"}"#, Class::ServerError, "HTTP 500 SystemError"),
            (
                200,
                r#"{"Code":"INSTANCE_NOT_EXIST","IsSuccess":false}"#,
                Class::InvalidSpec,
                "acr-instance-ids",
            ),
            (401, r#"{"code":"UNAUTHORIZED","message":"s3cret"}"#, Class::Auth, "UNAUTHORIZED"),
            (503, "<html>s3cret", Class::ServerError, "HTTP 503"),
            (429, "", Class::RateLimited, "429"),
            (400, r#"{"Code":"\u001b[31ms3cret"}"#, Class::Auth, "HTTP 400)"),
        ] {
            let failure = refusal(status, body.as_bytes()).unwrap();
            assert_eq!(failure.class, class, "{body}");
            assert!(failure.message.contains(says) && !failure.message.contains("s3cret"), "{failure}");
        }
        assert_eq!(refusal(200, br#"{"IsSuccess":true,"Code":"success"}"#), None);
        assert_eq!(refusal(200, b"{}"), None);
    }

    #[test]
    fn answers_that_are_not_whole_are_errors_and_show_nothing() {
        let whole = br#"{"TempUsername":"u","AuthorizationToken":"s3cret","ExpireTime":1572604642000}"#;
        let login = enterprise_login(whole).unwrap();
        assert_eq!(login.expires.as_second(), 1_572_604_642);
        assert_eq!(format!("{login:?}"), "Login(..)");
        let personal =
            br#"{"data":{"tempUserName":"u","authorizationToken":"p","expireDate":1572604642000}}"#;
        assert_eq!(personal_login(personal).unwrap().user, "u");
        for bad in [
            r#"{"TempUsername":"u","AuthorizationToken":"","ExpireTime":1}"#,
            r#"{"TempUsername":"a:b","AuthorizationToken":"s3cret","ExpireTime":1}"#,
            r#"{"TempUsername":"u","AuthorizationToken":"s3cret","ExpireTime":9223372036854775807}"#,
            r#"{"AuthorizationToken":"s3cret"}"#,
        ] {
            let failure = enterprise_login(bad.as_bytes()).unwrap_err();
            assert!(failure.class == Class::ServerError && !failure.message.contains("s3cret"), "{failure}");
        }
    }

    #[test]
    fn an_instance_is_found_by_its_whole_name_and_its_domains_are_compared_in_lower_case() {
        let body = br#"{"Instances":[{"InstanceId":"cri-2","InstanceName":"shop2"},
            {"InstanceId":"cri-1","InstanceName":"shop"}]}"#;
        assert_eq!(instance_named(body, "shop").unwrap().as_deref(), Some("cri-1"));
        assert_eq!(instance_named(body, "sho").unwrap(), None);
        let body = br#"{"Endpoints":[{"EndpointType":"internet","Domains":[{"Domain":"A.example.com","Type":"USER"}]},{}]}"#;
        assert_eq!(domains(body).unwrap(), ["a.example.com"]);
    }
}
