"""Networks: layers, mapping, backbone, rendering, generator, discriminator."""
