"""What the product is compared with: other runtimes, and the script that a user would write."""
