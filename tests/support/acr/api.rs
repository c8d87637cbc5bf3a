//! The operations of STS and ACR, with trust and policies.

use imagecache::ops::clock;
use serde_json::{Value, json};

use super::{Asked, Key, State, signature};

type Answer = (u16, Value);

pub(crate) fn refuse(status: u16, code: &str, message: &str) -> Answer {
    (status, json!({"RequestId": "6A1F", "HostId": "127.0.0.1", "Code": code, "Message": message}))
}

fn unauthorised() -> Answer {
    refuse(403, "NoPermission", "You are not authorized to do this action. You should be authorized by RAM.")
}

fn no_privilege() -> Answer {
    let message = "You are not authorized to perform this operation.";
    (403, json!({"RequestId": "6A1F", "Code": "NoPrivilege", "Message": message, "IsSuccess": false}))
}

pub(crate) fn answer(state: &mut State, asked: &Asked) -> Answer {
    tried(state, asked).unwrap_or_else(|refused| refused)
}

fn tried(state: &mut State, asked: &Asked) -> Result<Answer, Answer> {
    let roa = asked.path == "/tokens";
    let action =
        if roa { "tokens" } else { asked.query.get("Action").map(String::as_str).unwrap_or_default() };
    let version = asked.query.get("Version").or_else(|| asked.headers.get("x-acs-version"));
    state.log.push(action.to_owned());
    match (action, version.map(String::as_str)) {
        ("AssumeRoleWithOIDC", Some("2015-04-01")) => with_token(state, asked),
        ("AssumeRole", Some("2015-04-01")) => {
            let caller = signature::check(state, asked)?;
            assume(state, asked, &caller)
        }
        ("GetAuthorizationToken", Some("2018-12-01")) => {
            let caller = signature::check(state, asked)?;
            let id = instance(state, asked, &caller, "cr:GetAuthorizationToken")?;
            let (user, password, expires) = issue(state, &id);
            Ok((
                200,
                json!({"IsSuccess": true, "Code": "success", "RequestId": "6A1F",
                "TempUsername": user, "AuthorizationToken": password, "ExpireTime": expires}),
            ))
        }
        ("ListInstanceEndpoint", Some("2018-12-01")) => {
            let caller = signature::check(state, asked)?;
            let id = instance(state, asked, &caller, "cr:ListInstanceEndpoint")?;
            let domain = |domain: &String| json!({"Domain": domain, "Type": "USER"});
            let domains: Vec<Value> = state.instances[id.as_str()].domains.iter().map(domain).collect();
            Ok((
                200,
                json!({"IsSuccess": true, "Code": "success", "Endpoints": [
                {"EndpointType": "internet", "Enable": true, "Domains": domains}, {"EndpointType": "vpc"}]}),
            ))
        }
        ("ListInstance", Some("2018-12-01")) => {
            let caller = signature::check(state, asked)?;
            let part = asked.form.get("InstanceName").cloned().unwrap_or_default();
            let mut found = Vec::new();
            for (id, instance) in &state.instances {
                if instance.name.contains(&part) && may(state, &caller, "cr:ListInstance", id) {
                    found.push(json!({"InstanceId": id, "InstanceName": instance.name}));
                }
            }
            Ok((200, json!({"IsSuccess": true, "Code": "success", "Instances": found})))
        }
        ("tokens", Some("2016-06-07")) => {
            let caller = signature::check(state, asked)?;
            if !may(state, &caller, "cr:GetAuthorizationToken", "personal") {
                return Err((401, json!({"code": "UNAUTHORIZED", "message": "authentication failed"})));
            }
            let (user, password, expires) = issue(state, "personal");
            Ok((
                200,
                json!({"requestId": "6A1F", "data":
                {"tempUserName": user, "authorizationToken": password, "expireDate": expires}}),
            ))
        }
        _ => Err(refuse(404, "InvalidAction.NotFound", "Specified api is not found.")),
    }
}

fn with_token(state: &mut State, asked: &Asked) -> Result<Answer, Answer> {
    let word = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
    signature::fresh(state, word("Timestamp"), word("SignatureNonce"))?;
    if asked.query.contains_key("OIDCToken") {
        return Err(refuse(400, "InvalidParameter", "A token in an address ends in logs."));
    }
    let form = |name: &str| asked.form.get(name).map(String::as_str).unwrap_or_default();
    let Some((token, subject)) =
        state.oidc.clone().filter(|_| form("OIDCProviderArn").contains(":oidc-provider/"))
    else {
        return Err(refuse(401, "AuthenticationFail.NoPermission", "No such OIDC Provider registered."));
    };
    if form("OIDCToken") != token {
        return Err(refuse(401, "AuthenticationFail.OIDCToken.Expired", "This JsonWebToken is expired."));
    }
    let Some(role) = state.roles.get(form("RoleArn")) else {
        return Err(refuse(404, "EntityNotExist.Role", "The role not exists: s3cret."));
    };
    if !role.trusts.contains(&subject) {
        return Err(refuse(401, "AuthenticationFail.NoPermission", "There is no permission"));
    }
    Ok(session(state, asked))
}

fn assume(state: &mut State, asked: &Asked, caller: &Key) -> Result<Answer, Answer> {
    let arn = asked.form.get("RoleArn").cloned().unwrap_or_default();
    let Some(role) = state.roles.get(arn.as_str()) else {
        return Err(refuse(404, "EntityNotExist.Role", "The role not exists: s3cret."));
    };
    let written = arn.replacen("acs:ram::", "acs:ram:*:", 1);
    let allowed = caller.policy.as_ref().is_none_or(|policy| covers(policy, "sts:AssumeRole", &written));
    if !allowed || !role.trusts.contains(&caller.who.as_str()) {
        return Err(unauthorised());
    }
    Ok(session(state, asked))
}

fn session(state: &mut State, asked: &Asked) -> Answer {
    state.count += 1;
    let n = state.count;
    let policy = asked.form.get("Policy").map(|policy| serde_json::from_str(policy).unwrap());
    let (id, secret, token) = (format!("STS.{n}"), format!("sts-s3cret-{n}"), format!("sts-t0ken-{n}+/="));
    let who = asked.form.get("RoleArn").cloned().unwrap_or_default();
    let key = Key { secret: secret.clone(), token: Some(token.clone()), who, policy };
    state.keys.insert(id.clone(), key);
    let expires = clock::now().to_string();
    (
        200,
        json!({"RequestId": "6A1F", "Credentials": {"AccessKeyId": id, "AccessKeySecret": secret,
        "SecurityToken": token, "Expiration": expires}}),
    )
}

fn covers(policy: &Value, action: &str, resource: &str) -> bool {
    let fits = |pattern: &Value, text: &str| {
        let pattern = pattern.as_str().unwrap();
        pattern.strip_suffix('*').map_or(pattern == text, |begin| text.starts_with(begin))
    };
    let any = |value: &Value, text: &str| match value {
        Value::Array(all) => all.iter().any(|pattern| fits(pattern, text)),
        one => fits(one, text),
    };
    let statements = policy["Statement"].as_array().unwrap();
    statements.iter().any(|s| any(&s["Action"], action) && any(&s["Resource"], resource))
}

/// Users may do everything with instances: their account's administrator said so.
fn may(state: &State, caller: &Key, action: &str, id: &str) -> bool {
    let role = state.roles.get(caller.who.as_str());
    let cut = caller.policy.as_ref().is_none_or(|policy| covers(policy, action, "acs:cr:any"));
    cut && role.is_none_or(|role| role.instances.contains(&id))
}

fn instance(state: &State, asked: &Asked, caller: &Key, action: &str) -> Result<String, Answer> {
    let id = asked.form.get("InstanceId").cloned().unwrap_or_default();
    if !may(state, caller, action, &id) {
        return Err(no_privilege());
    }
    if !state.instances.contains_key(id.as_str()) {
        return Err((200, json!({"IsSuccess": false, "Code": "INSTANCE_NOT_EXIST"})));
    }
    Ok(id)
}

fn issue(state: &mut State, registry: &str) -> (String, String, i64) {
    state.count += 1;
    let (user, password) = (format!("cr_temp_user-{registry}"), format!("p4ss-{}", state.count));
    state.issued.push((user.clone(), password.clone()));
    (user, password, (clock::now().as_second() + state.life) * 1000)
}
