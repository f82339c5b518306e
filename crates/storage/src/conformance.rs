//! What every engine has to do, as tests any engine can run.
