//! `imagecache convert`: other clouds' image caches as ours. The objects go to standard output, what is to be said of
//! them to standard error.

use std::{io::Read as _, path::Path};

use crate::{
    cli::{ConvertArgs, Format},
    convert::{self, Converted, Options, Text, Weight},
    ops::out::{print, tell},
};

/// With `--strict`: something has no counterpart.
const NOT_ALL: u8 = 1;
/// The input, or an object in it, cannot be read.
const BAD_INPUT: u8 = 2;

/// Runs the command and returns the exit status.
pub fn run(args: &ConvertArgs) -> u8 {
    let mut texts = Vec::new();
    for path in &args.filename {
        match read(path) {
            Ok(text) => texts.push(text),
            Err(error) => {
                tell(&format!("{}: {error}", path.display()));
                return BAD_INPUT;
            }
        }
    }
    let options = Options { namespace: args.namespace.clone() };
    let converted = match convert::convert(&texts, &options) {
        Ok(converted) => converted,
        Err(error) => {
            tell(&error.to_string());
            return BAD_INPUT;
        }
    };
    for remark in &converted.remarks {
        tell(&remark.to_string());
    }
    let status = status(&converted, args.strict);
    if converted.objects.is_empty() {
        tell("there is no image cache to convert");
        return BAD_INPUT;
    }
    if args.strict && status != 0 {
        tell("--strict: nothing is printed, because not everything could be converted");
        return status;
    }
    match args.output {
        Format::Json => print(&convert::to_json(&converted.objects)),
        Format::Yaml => match convert::to_yaml(&converted.objects) {
            Ok(text) => print(&text),
            Err(error) => {
                tell(&error.to_string());
                return BAD_INPUT;
            }
        },
    }
    status
}

fn status(converted: &Converted, strict: bool) -> u8 {
    match converted.weight() {
        Some(Weight::Refusal) => BAD_INPUT,
        Some(Weight::Loss) if strict => NOT_ALL,
        _ => 0,
    }
}

fn read(path: &Path) -> std::io::Result<Text> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(Text { name: "standard input".to_owned(), text });
    }
    Ok(Text { name: path.display().to_string(), text: std::fs::read_to_string(path)? })
}
