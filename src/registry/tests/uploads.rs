//! Tests of uploads, and of reading what breaks off.
