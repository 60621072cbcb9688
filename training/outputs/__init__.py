"""What users take away: objects, figures, meshes, videos."""
