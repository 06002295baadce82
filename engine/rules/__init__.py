"""Business rules: what marketing and compliance say about slates, in one YAML file that users edit."""
