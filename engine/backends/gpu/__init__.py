"""What the GPU backend is made of: where pixels lie, what each network is given, and how it runs."""
