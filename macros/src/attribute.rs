//! `#[message(…)]`.

use crate::name;
use proc_macro2::Span;
use syn::{Attribute, Error, Ident, LitStr, Path, Result, meta::ParseNestedMeta};

/// What the attributes of one type say.
#[derive(Default)]
pub(crate) struct Options {
    name: Option<LitStr>,
    krate: Option<Path>,
}

const EXAMPLE: &str = "add `#[message(name = \"shop.order-placed\")]`, the stable name under which it travels";

impl Options {
    /// Reads all `#[message(…)]` of a type.
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("message")) {
            attribute
                .meta
                .require_list()
                .map_err(|_| Error::new_spanned(attribute, "write `#[message(name = \"shop.order-placed\")]`"))?;
            attribute.parse_nested_meta(|meta| options.read(&meta))?;
        }
        Ok(options)
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("name") {
            let name = text(meta, "name", "\"shop.order-placed\"")?;
            if self.name.is_some() {
                return Err(meta.error("`name` is given twice"));
            }
            if let Some(problem) = name::problem(&name.value()) {
                return Err(Error::new(name.span(), problem));
            }
            self.name = Some(name);
        } else if meta.path.is_ident("crate") {
            let path = text(meta, "crate", "\"path::to::sagabus\"")?;
            if self.krate.is_some() {
                return Err(meta.error("`crate` is given twice"));
            }
            let parsed = path.parse_with(Path::parse_mod_style);
            self.krate =
                Some(parsed.map_err(|_| {
                    Error::new(path.span(), "`crate` is no path: write `crate = \"path::to::sagabus\"`")
                })?);
        } else {
            return Err(meta.error("unknown option; there are `name` and `crate`"));
        }
        Ok(())
    }

    /// The wire name; `owner` is the type that should have one.
    pub(crate) fn name(&self, owner: &Ident) -> Result<&LitStr> {
        let missing = || Error::new(owner.span(), format!("`{owner}` has no wire name: {EXAMPLE}"));
        self.name.as_ref().ok_or_else(missing)
    }

    /// Where the trait is found.
    pub(crate) fn krate(self) -> Path {
        self.krate.unwrap_or_else(|| syn::parse_quote_spanned!(Span::call_site()=> ::sagabus))
    }
}

fn text(meta: &ParseNestedMeta<'_>, option: &str, example: &str) -> Result<LitStr> {
    let expected = format!("`{option}` needs a text: write `{option} = {example}`");
    let value = meta.value().map_err(|_| meta.error(&expected))?;
    let span = value.span();
    value.parse().map_err(|_| Error::new(span, expected))
}
