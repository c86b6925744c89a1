//! Model checks of the state machines that tidegate's threads share.
