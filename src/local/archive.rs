//! `imagecache export` and `imagecache import`: a cache crosses an air gap.

use super::{bar, choose::by_name, table::human};
use crate::{
    cli::{ExportArgs, ImportArgs, Output},
    export::{Exported, Import, Imported, export, import},
    model::{failure::Failure, text::count},
    ops::{
        clock,
        out::{print, tell},
    },
    store::Store,
};

/// Runs the command and returns the exit status.
pub fn run_export(args: &ExportArgs) -> u8 {
    let bar = bar::of_bytes();
    let exported = (|| {
        let store = Store::open(&args.volume)?;
        let cache = by_name(&args.cache, &store.roots()?)?;
        export(&store, &cache, &args.to, &|done, total| bar::show(&bar, done, total))
    })();
    bar.finish_and_clear();
    say(args.output, exported, |done: &Exported| {
        format!(
            "{}: {} in {} of {}, run {}\n",
            done.to.display(),
            human(done.bytes),
            count(done.images, "image"),
            done.cache,
            done.run
        )
    })
}

/// Runs the command and returns the exit status.
pub fn run_import(args: ImportArgs) -> u8 {
    let bar = bar::of_bytes();
    let imported = (|| {
        let store = Store::create_or_open(&args.volume)?;
        let wanted =
            Import { store: &store, from: &args.from, name: args.name, image: args.image, now: clock::now() };
        import(&wanted, &|done, total| bar::show(&bar, done, total))
    })();
    bar.finish_and_clear();
    say(args.output, imported, |done: &Imported| {
        let images = done.images.iter().map(|image| format!("{}  {}\n", image.reference, image.digest));
        let total = format!("{}: {}, {} of them new\n", done.cache, human(done.bytes), human(done.added));
        images.chain([total]).collect()
    })
}

fn say<T: serde::Serialize>(output: Output, done: Result<T, Failure>, text: impl Fn(&T) -> String) -> u8 {
    match done {
        Ok(done) => {
            print(&if output == Output::Json {
                serde_json::to_string_pretty(&done).unwrap_or_default()
            } else {
                text(&done)
            });
            0
        }
        Err(failure) => {
            tell(&failure.to_string());
            failure.class.exit_code()
        }
    }
}
