"""What makes a forward pass cheap to launch and its faults cheap to survive."""
