//! Streams of exec, attach, port-forward and logs.
