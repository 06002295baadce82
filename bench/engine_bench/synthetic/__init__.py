"""The synthetic world: items and users in one latent space, and what they do, with the truth kept."""
