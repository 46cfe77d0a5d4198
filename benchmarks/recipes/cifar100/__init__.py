"""The CIFAR-100 protocol of the distillation literature."""
