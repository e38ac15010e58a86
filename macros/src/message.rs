//! The derive itself.

use crate::attribute::Options;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, Result};

pub(crate) fn derive(input: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    let options = Options::of(&input.attrs)?;
    let ident = &input.ident;
    let name = options.name(ident)?.clone();
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            format!(
                "`{ident}` is generic, but a message is one type with one wire name: \
                 make a type of its own for each message, or implement `Message` by hand"
            ),
        ));
    }
    let krate = options.krate();
    Ok(quote! {
        #[automatically_derived]
        impl #krate::Message for #ident {
            const NAME: &'static str = #name;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::derive;
    use quote::quote;

    fn error(input: proc_macro2::TokenStream) -> String {
        derive(input).unwrap_err().to_string()
    }

    #[test]
    fn the_default_path_and_another_one() {
        let text = derive(quote! { #[message(name = "a.b")] struct A; }).unwrap().to_string();
        assert!(text.contains("impl :: sagabus :: Message for A"), "{text}");
        assert!(text.contains("\"a.b\""), "{text}");
        let text = derive(quote! { #[message(name = "a", crate = "bus::inner")] enum A {} }).unwrap().to_string();
        assert!(text.contains("impl bus :: inner :: Message for A"), "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error(quote! { struct A; }).contains("`A` has no wire name"));
        assert!(error(quote! { #[message()] struct A; }).contains("`A` has no wire name"));
        assert!(error(quote! { #[message] struct A; }).contains("write `#[message(name"));
        assert!(error(quote! { #[message = "a"] struct A; }).contains("write `#[message(name"));
        assert!(error(quote! { #[message(name = "")] struct A; }).contains("is empty"));
        assert!(error(quote! { #[message(name = "a b")] struct A; }).contains("contains ' '"));
        assert!(error(quote! { #[message(name = 7)] struct A; }).contains("needs a text"));
        assert!(error(quote! { #[message(name)] struct A; }).contains("needs a text"));
        assert!(error(quote! { #[message(name = "a", name = "b")] struct A; }).contains("twice"));
        assert!(error(quote! { #[message(name = "a")] #[message(name = "b")] struct A; }).contains("twice"));
        assert!(error(quote! { #[message(name = "a", crate = "a b")] struct A; }).contains("is no path"));
        assert!(error(quote! { #[message(nmae = "a")] struct A; }).contains("unknown option"));
        assert!(error(quote! { #[message(name = "a")] struct A<T>(T); }).contains("is generic"));
    }
}
