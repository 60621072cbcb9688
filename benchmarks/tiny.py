"""Sizes for runs that take a second, as rehearsals and tests want them."""

# As small as networks can be; the rest of the toy preset stays as it is.
TINY = {
    "generator.z_dim": 8,
    "generator.w_dim": 8,
    "generator.channel_base": 256,
    "generator.channel_max": 8,
    "generator.plane_resolution": 16,
    "generator.plane_channels": 4,
    "generator.decoder_hidden": 8,
    "discriminator.channel_base": 256,
    "discriminator.channel_max": 8,
    "discriminator.mapping_layers": 2,
    "rendering.samples": 4,
    "rendering.importance_samples": 4,
    "rendering.sampling_multiplier": 1,
}
