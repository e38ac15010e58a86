//! Makes tests of functions.

/// One of each function for each backend, in a bed of its own.
macro_rules! on_backends {
    ($($test:ident),*; $backend:ident = $kind:ident) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let place = std::sync::Arc::new($crate::place::Place::new($crate::place::Kind::$kind));
                    super::$test($crate::bed::Bed::new(place.clone())).await;
                    place.remove().await;
                }
            )*
        }
    };
    ($($test:ident),*; $backend:ident = $kind:ident, $($rest:tt)*) => {
        on_backends! { $($test),*; $backend = $kind }
        on_backends! { $($test),*; $($rest)* }
    };
}
