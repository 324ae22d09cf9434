"""What a manager does with etcd beside leading: it reads on, is registered, and sees the others."""
