"""What is known of models before they are loaded: families as data, what a config resolves to."""
