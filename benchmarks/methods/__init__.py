"""Every distillation method against kd and a student without a teacher, on Fashion-MNIST."""
