# Two stacks side by side, each with its own name. The region and the default tags are
# the provider's. For another region pass a provider to the call: providers = { aws = aws.frankfurt }.

provider "aws" {
  region = "us-east-1"

  default_tags {
    tags = { owner = "platform" }
  }
}

variable "ddg_api_key" {
  type      = string
  default   = null # destroy needs none
  sensitive = true
}

module "ddg_stats" {
  source   = "../.."
  for_each = toset(["test", "prod"])

  name        = "ddg-stats-${each.key}"
  ddg_api_key = var.ddg_api_key
  tags        = { environment = each.key }
}

output "buckets" {
  value = { for environment, stack in module.ddg_stats : environment => stack.bucket }
}
