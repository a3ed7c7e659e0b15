# The stack takes files from an existing bucket, below etl/stats/, through EventBridge. It has no bucket
# of its own.

provider "aws" {
  region = "us-east-1"
}

variable "ddg_api_key" {
  type      = string
  default   = null # destroy needs none
  sensitive = true
}

variable "bucket" {
  type        = string
  description = "The bucket's name. Terraform must know it when it plans, so it isn't read from a resource."
  default     = "acme-data-123456789012"
}

# Your own Terraform has these two already: add only eventbridge = true.
resource "aws_s3_bucket" "data" {
  bucket = var.bucket
}

resource "aws_s3_bucket_notification" "data" {
  bucket      = aws_s3_bucket.data.id
  eventbridge = true
}

module "ddg_stats" {
  source = "../.."

  name          = "my-stats"
  ddg_api_key   = var.ddg_api_key
  create_bucket = false

  buckets = {
    (var.bucket) = { prefix = "etl/stats/" }
  }
}

output "producer_policy" {
  value = module.ddg_stats.bucket_steps[var.bucket].producer_policy
}
