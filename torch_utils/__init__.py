"""What several packages need of torch: processes, devices, images, statistics, operations."""
