"""What a teacher learns where labels are few: from unlabeled images, and from another domain."""
