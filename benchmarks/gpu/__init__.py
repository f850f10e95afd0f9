"""What is compiled, checked and measured for GPUs."""
