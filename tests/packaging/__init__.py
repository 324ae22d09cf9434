"""What is shipped beside the code: the manifests for Kubernetes, and the page for their users."""
